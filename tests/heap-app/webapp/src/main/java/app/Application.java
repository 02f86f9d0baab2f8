package app;

import java.util.Timer;
import java.util.TimerTask;
import org.hibernate.internal.SessionFactoryImpl;

/** The web application. Each start of it is a copy of this class, of a class loader of its own. */
public final class Application {
    private static SessionFactoryImpl factory;

    private static final ThreadLocal<Application> CURRENT = new ThreadLocal<>();

    private Application() {}

    /**
     * Starts copy {@code copy} of the application {@code name}, which leaves behind what {@code holder} says: {@code none},
     * a {@code thread}, a {@code timer}, a {@code shutdown_hook}, or a {@code thread_local} of the calling thread.
     */
    public static void start(String name, int copy, String holder) {
        factory = new SessionFactoryImpl(name);
        switch (holder) {
            case "none":
                break;
            case "thread":
                Thread worker = new Thread(Application::work, name + "-worker-" + copy);
                worker.setDaemon(true);
                worker.start();
                break;
            case "timer":
                new Timer(name + "-timer-" + copy, true).schedule(new Task(), 1_000_000_000L);
                break;
            case "shutdown_hook":
                Runtime.getRuntime().addShutdownHook(new Thread(Application::end, name + "-hook-" + copy));
                break;
            case "thread_local":
                CURRENT.set(new Application());
                break;
            default:
                throw new IllegalArgumentException(holder);
        }
    }

    private static void work() {
        while (true) {
            try {
                Thread.sleep(1_000_000_000L);
            } catch (InterruptedException e) {
                // A thread that does not end when it is asked to.
            }
        }
    }

    private static void end() {
        factory = null;
    }

    private static final class Task extends TimerTask {
        @Override
        public void run() {
            end();
        }
    }
}
