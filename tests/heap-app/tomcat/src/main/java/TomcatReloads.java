import java.io.File;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.logging.Level;
import java.util.logging.Logger;
import java.util.stream.Stream;
import org.apache.catalina.Context;
import org.apache.catalina.Lifecycle;
import org.apache.catalina.LifecycleEvent;
import org.apache.catalina.LifecycleListener;
import org.apache.catalina.startup.Tomcat;

/**
 * A Tomcat with seven web applications, two of them reloadable and reloaded.
 *
 * <p>After it fifteen class loaders of web applications were there at one time or another whose application is
 * {@code /app_a} (nine) or one of the other six, and {@code /app_b} was reloaded as often as {@code /app_a}. With a holder
 * (see {@code app.Application}) the eight that {@code /app_a} has left behind stay; {@code /app_b} never leaves any.
 */
public final class TomcatReloads {
    private static final String[] NAMES = {"app_a", "app_b", "shop", "wiki", "mail", "docs", "api"};
    private static final int RELOADS = 8;
    /** Kept, or the JDK forgets that it logs nothing. */
    private static final Logger LOGGER = Logger.getLogger("org.apache");

    private final String holder;
    private final Map<String, Integer> copies = new HashMap<>();

    private TomcatReloads(String holder) {
        this.holder = holder;
    }

    public static void main(String[] args) throws Exception {
        LOGGER.setLevel(Level.OFF);
        Path classes = Paths.get(args[0]);
        Path base = Files.createTempDirectory("memtrace-tomcat-");
        Tomcat tomcat = new TomcatReloads(args[1]).start(classes, base);
        System.gc();
        System.out.println("ready");
        System.in.read();
        tomcat.stop();
        remove(base);
        System.exit(0);
    }

    private Tomcat start(Path classes, Path base) throws Exception {
        Tomcat tomcat = new Tomcat();
        tomcat.setBaseDir(base.toString());
        tomcat.getHost().setAppBase("webapps");
        List<Context> reloadable = new ArrayList<>();
        for (String name : NAMES) {
            Path folder = base.resolve("webapps").resolve(name);
            copy(classes, folder.resolve("WEB-INF/classes"));
            Context context = tomcat.addContext("/" + name, folder.toString());
            context.addLifecycleListener(new Starter(name));
            if (name.startsWith("app_")) {
                context.setReloadable(true);
                reloadable.add(context);
            }
        }
        tomcat.start();
        for (int i = 0; i < RELOADS; i++) {
            for (Context context : reloadable) {
                context.reload();
            }
        }
        return tomcat;
    }

    /** Starts the web application in its own class loader, while that is the thread's, as a servlet listener would be. */
    private final class Starter implements LifecycleListener {
        private final String name;

        Starter(String name) {
            this.name = name;
        }

        @Override
        public void lifecycleEvent(LifecycleEvent event) {
            if (!event.getType().equals(Lifecycle.CONFIGURE_START_EVENT)) {
                return;
            }
            int copy = copies.merge(name, 1, Integer::sum);
            // The other applications have no database, and nothing that they leave behind.
            if (!name.startsWith("app_")) {
                return;
            }
            ClassLoader loader = Thread.currentThread().getContextClassLoader();
            try {
                loader.loadClass("app.Application")
                        .getMethod("start", String.class, int.class, String.class)
                        .invoke(null, name, copy, name.equals("app_a") ? holder : "none");
            } catch (ReflectiveOperationException e) {
                throw new IllegalStateException(e);
            }
        }
    }

    private static void copy(Path from, Path to) throws IOException {
        try (Stream<Path> files = Files.walk(from)) {
            for (Path file : (Iterable<Path>) files::iterator) {
                Path copy = to.resolve(from.relativize(file).toString());
                Files.createDirectories(copy.getParent());
                Files.copy(file, copy);
            }
        }
    }

    private static void remove(Path folder) throws IOException {
        List<File> files = new ArrayList<>();
        try (Stream<Path> walk = Files.walk(folder)) {
            walk.forEach(file -> files.add(0, file.toFile()));
        }
        files.forEach(File::delete);
    }
}
