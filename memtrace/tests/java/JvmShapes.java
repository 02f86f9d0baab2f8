import java.lang.reflect.Method;
import java.security.AccessController;
import java.security.PrivilegedAction;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.locks.LockSupport;
import java.util.function.IntSupplier;

/** Parks threads in stacks of every shape that HotSpot makes, says so, and waits. */
public class JvmShapes {
    static final CountDownLatch PARKED = new CountDownLatch(10);
    static final Object NEVER_NOTIFIED = new Object();
    static volatile boolean isWarm;
    static int sink;

    interface Shape {
        int area();
    }

    static class Square implements Shape {
        public int area() {
            return pauseOnceWarm();
        }
    }

    static class Circle implements Shape {
        public int area() {
            return pauseOnceWarm() + 1;
        }
    }

    static class Triangle implements Shape {
        public int area() {
            return pauseOnceWarm() + 2;
        }
    }

    static class Initialized {
        static {
            park();
        }

        static void touch() {}
    }

    static void park() {
        PARKED.countDown();
        while (true) {
            LockSupport.park();
        }
    }

    static int pauseOnceWarm() {
        if (isWarm) {
            park();
        }
        return sink++;
    }

    static int recurse(int depth) {
        if (depth == 0) {
            park();
        }
        return recurse(depth - 1) + 1;
    }

    /** Small enough to be inlined into {@link #outer}. */
    static int inner(int n) {
        return n % 7 == 3 ? pauseOnceWarm() : n;
    }

    static int outer(int n) {
        int sum = 0;
        for (int i = 0; i < 20; i++) {
            sum += inner(n + i);
        }
        return sum;
    }

    static void compiled() {
        for (int i = 0; i < 20_000; i++) {
            sink += outer(i);
        }
        isWarm = true;
        outer(1);
    }

    /** Compiled while it runs. */
    static void longLoop() {
        long end = System.nanoTime() + 300_000_000L;
        for (int i = 0; System.nanoTime() < end; i++) {
            sink += i % 3;
        }
        park();
    }

    static void megamorphic() {
        Shape[] shapes = {new Square(), new Circle(), new Triangle()};
        for (int i = 0; ; i++) {
            sink += shapes[i % 3].area();
            if (i > 60_000) {
                park();
            }
        }
    }

    static void reflect() throws Exception {
        Method method = JvmShapes.class.getDeclaredMethod("park");
        method.invoke(null);
    }

    @SuppressWarnings("removal")
    static void privileged() {
        AccessController.doPrivileged((PrivilegedAction<Void>) () -> {
            park();
            return null;
        });
    }

    static synchronized void monitor() {
        synchronized (NEVER_NOTIFIED) {
            try {
                PARKED.countDown();
                NEVER_NOTIFIED.wait();
            } catch (InterruptedException e) {
                throw new IllegalStateException(e);
            }
        }
    }

    static void lambda() {
        IntSupplier supplier = () -> recurse(3);
        supplier.getAsInt();
    }

    interface Body {
        void run() throws Exception;
    }

    static void start(String name, Body body) {
        Thread thread = new Thread(() -> {
            try {
                body.run();
            } catch (Exception e) {
                throw new IllegalStateException(e);
            }
        }, name);
        thread.setDaemon(true);
        thread.start();
    }

    public static void main(String[] args) throws Exception {
        start("recursion of more than twenty frames", () -> recurse(25));
        start("compiled and inlined", JvmShapes::compiled);
        start("compiled in a loop", JvmShapes::longLoop);
        start("megamorphic", JvmShapes::megamorphic);
        start("reflection", JvmShapes::reflect);
        start("privileged", JvmShapes::privileged);
        start("class initializer", Initialized::touch);
        start("gr\u00fcn \u65e5\u672c lambda", JvmShapes::lambda);
        start("a name that is longer than a kernel's", JvmShapes::park);
        start("monitor", JvmShapes::monitor);
        PARKED.await();
        Thread.sleep(200);
        System.out.println("ready");
        Thread.sleep(3_600_000);
    }
}
