package demo;

import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;

/**
 * A web application with a database that does nothing but start.
 *
 * <p>System properties: {@code demo.once=true} ends the process when both the start-up and the scan
 * are finished, {@code demo.linger=SECONDS} so much later, {@code demo.scan=all|own} says which classes are scanned, and
 * {@code demo.closeInflaters=true} scans without leaving an Inflater to the garbage collector.
 */
@SpringBootApplication
public class Demo {
    public static void main(String[] args) throws InterruptedException {
        ConfigScanner scanner;
        try {
            scanner = SpringApplication.run(Demo.class, args).getBean(ConfigScanner.class);
        } catch (RuntimeException failure) {
            // Spring has printed it. Tomcat's threads would keep the process alive for ever.
            System.exit(1);
            return;
        }
        scanner.await();
        if (Boolean.getBoolean("demo.once") || scanner.failed()) {
            Thread.sleep(Long.getLong("demo.linger", 0) * 1000);
            System.exit(scanner.failed() ? 1 : 0);
        }
    }
}
