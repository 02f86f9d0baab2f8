import java.lang.reflect.InvocationHandler;
import java.lang.reflect.Proxy;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;

/**
 * Runs a call tree that can be checked: level 3 calls nothing but level 4, and so on, each level in three classes. The
 * code is compiled, deoptimised, thrown away and unloaded all the while.
 */
public class JvmCallTree {
    static final int LEVELS = 9;
    static volatile Object kept;
    static final Random RANDOM = new Random(7);
    static final Map<Object, Object> MAP = new HashMap<>();

    interface Node {
        int level(int level, int n);
    }

    static class Plain implements Node {
        public int level(int level, int n) {
            return level == LEVELS ? leaf(n) : next(level + 1, n) + level;
        }
    }

    static class Allocating implements Node {
        public int level(int level, int n) {
            List<Integer> list = new ArrayList<>();
            for (int i = 0; i < n % 20; i++) {
                list.add(i * level);
            }
            kept = list;
            return level == LEVELS ? leaf(n) : next(level + 1, n) + list.size();
        }
    }

    static class Synchronized implements Node {
        public synchronized int level(int level, int n) {
            synchronized (MAP) {
                return level == LEVELS ? leaf(n) : next(level + 1, n) ^ n;
            }
        }
    }

    static final Node[] NODES = {new Plain(), new Allocating(), new Synchronized()};

    static int next(int level, int n) {
        return NODES[(n >>> level) % 3 & 3].level(level, n);
    }

    static int leaf(int n) {
        switch (n % 5) {
            case 0:
                MAP.put(n % 1000, new int[n % 100]);
                return 1;
            case 1:
                return Integer.toString(n).hashCode();
            case 2:
                try {
                    throw new IllegalStateException();
                } catch (IllegalStateException e) {
                    return 2;
                }
            case 3:
                byte[] bytes = new byte[n % 4000];
                System.arraycopy(bytes, 0, new byte[4000], 0, bytes.length);
                return bytes.length;
            default:
                double sum = 0;
                for (int i = 0; i < 3; i++) {
                    sum += Math.sin(i * n);
                }
                return (int) sum;
        }
    }

    static void work() {
        for (int n = 0; ; n = n + 1 & 0xfffffff) {
            kept = next(1, n);
        }
    }

    /** Classes that come and go. */
    static void churn() throws Exception {
        for (int n = 0; ; n++) {
            ClassLoader loader = new ClassLoader(JvmCallTree.class.getClassLoader()) {};
            InvocationHandler handler = (proxy, method, args) -> 1;
            Object proxy = Proxy.newProxyInstance(loader, new Class<?>[] {Runnable.class}, handler);
            for (int i = 0; i < 3000; i++) {
                proxy.hashCode();
            }
            if (n % 50 == 0) {
                System.gc();
                System.out.println(n == 50 ? "ready" : "");
            }
            Thread.sleep(2);
        }
    }

    public static void main(String[] args) throws Exception {
        Thread worker = new Thread(JvmCallTree::work, "worker");
        worker.setDaemon(true);
        worker.start();
        churn();
    }
}
