package app;

import java.io.IOException;
import java.io.UncheckedIOException;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.WebApplicationType;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.boot.devtools.restart.DefaultRestartInitializer;
import org.springframework.boot.devtools.restart.Restarter;

/**
 * An application that its developer tools restart four times.
 *
 * <p>Each copy of this class, in a {@code RestartClassLoader} of its own, starts a thread that never ends (argument
 * {@code thread}) or none ({@code none}). Without the thread there is no Spring context either: Spring Boot itself keeps the
 * first copy, by its shutdown hook's thread and by {@code BindConverter.sharedInstance}.
 */
@SpringBootApplication
public class DevtoolsRestarts {
    private static final int RESTARTS = 4;
    /** A property, since a copy of this class knows nothing of the others. */
    private static final String COPY = "memtrace.copy";

    private static final byte[] CACHE = new byte[1 << 20];

    public static void main(String[] args) {
        // The first call of main never gets past this: it ends its thread and has main called again.
        Restarter.initialize(args, false, new DefaultRestartInitializer());
        int copy = Integer.getInteger(COPY, 0) + 1;
        System.setProperty(COPY, Integer.toString(copy));
        if (args[0].equals("thread")) {
            SpringApplication application = new SpringApplication(DevtoolsRestarts.class);
            application.setWebApplicationType(WebApplicationType.NONE);
            application.run(args);
            Thread worker = new Thread(DevtoolsRestarts::work, "restarted-worker-" + copy);
            worker.setDaemon(true);
            worker.start();
        }
        if (copy <= RESTARTS) {
            restart();
        } else {
            // The thread that has restarted this copy waits until main returns, and belongs to the copy before.
            new Thread(DevtoolsRestarts::await, "waits").start();
        }
    }

    /** From a thread with the class loader that is never replaced, as the watcher of the class path's files does it. */
    private static void restart() {
        Thread thread = new Thread(() -> Restarter.getInstance().restart(), "restarts");
        thread.setContextClassLoader(Restarter.class.getClassLoader());
        thread.start();
    }

    private static void await() {
        try {
            System.gc();
            System.out.println("ready");
            System.in.read();
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        System.exit(0);
    }

    private static void work() {
        while (CACHE.length > 0) {
            try {
                Thread.sleep(1_000_000_000L);
            } catch (InterruptedException e) {
                // A thread that does not end when it is asked to.
            }
        }
    }
}
