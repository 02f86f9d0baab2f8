package demo;

import java.net.URL;
import java.util.Collection;
import java.util.concurrent.CountDownLatch;
import org.reflections.Reflections;
import org.reflections.scanners.SubTypesScanner;
import org.reflections.scanners.TypeAnnotationsScanner;
import org.reflections.util.ClasspathHelper;
import org.reflections.util.ConfigurationBuilder;
import org.reflections.util.FilterBuilder;
import org.springframework.beans.factory.InitializingBean;
import org.springframework.stereotype.Component;

/**
 * Looks for {@link Configured} classes in a thread of its own while the application starts.
 *
 * <p>Reflections opens every class of every jar to find them. Through Spring Boot's nested jars each
 * of these streams has an Inflater that closing the stream does not end: it is left to the garbage
 * collector, and with it tens of kilobytes of native memory.
 */
@Component
@Configured
public class ConfigScanner implements InitializingBean, Runnable {
    private static final String OWN_PACKAGE = Demo.class.getPackage().getName();

    private final CountDownLatch finished = new CountDownLatch(1);
    private volatile boolean failed = true;

    @Override
    public void afterPropertiesSet() {
        Thread thread = new Thread(this, "mcc-config-scanner");
        thread.setDaemon(true);
        thread.start();
    }

    @Override
    public void run() {
        try {
            scan(urls());
            failed = false;
        } finally {
            System.out.println("demo: scan " + (failed ? "failed" : "finished"));
            finished.countDown();
        }
    }

    void await() throws InterruptedException {
        finished.await();
    }

    boolean failed() {
        return failed;
    }

    private static Collection<URL> urls() {
        String which = System.getProperty("demo.scan", "all");
        switch (which) {
            case "all":
                return ClasspathHelper.forClassLoader(ConfigScanner.class.getClassLoader());
            case "own":
                return ClasspathHelper.forPackage(OWN_PACKAGE, ConfigScanner.class.getClassLoader());
            default:
                throw new IllegalArgumentException("demo.scan is `all` or `own`, not `" + which + "`");
        }
    }

    private static void scan(Collection<URL> urls) {
        if (Boolean.getBoolean("demo.closeInflaters")) {
            ClosedJars.use();
        }
        CountingScanner classes = new CountingScanner();
        ConfigurationBuilder configuration =
                new ConfigurationBuilder()
                        .setUrls(urls)
                        .setScanners(new TypeAnnotationsScanner(), new SubTypesScanner(), classes);
        if ("own".equals(System.getProperty("demo.scan"))) {
            configuration.filterInputsBy(new FilterBuilder().includePackage(OWN_PACKAGE));
        }
        long start = System.nanoTime();
        Reflections reflections = new Reflections(configuration);
        System.out.println("demo: jars " + urls.size());
        System.out.println("demo: classes " + classes.count());
        System.out.println(
                "demo: configured " + reflections.getTypesAnnotatedWith(Configured.class).size());
        System.out.println("demo: scan_ms " + (System.nanoTime() - start) / 1_000_000);
    }
}
