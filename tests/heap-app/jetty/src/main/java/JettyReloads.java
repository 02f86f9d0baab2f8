import java.nio.file.Path;
import java.nio.file.Paths;
import org.eclipse.jetty.ee10.webapp.WebAppContext;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.server.handler.ContextHandlerCollection;

/** A Jetty with the web applications {@code /app_a} and {@code /app_b}, each stopped and started again four times. */
public final class JettyReloads {
    private static final int RELOADS = 4;

    private JettyReloads() {}

    public static void main(String[] args) throws Exception {
        Path folder = Paths.get(args[0]).toAbsolutePath();
        String holder = args[1];
        Server server = new Server();
        ContextHandlerCollection contexts = new ContextHandlerCollection();
        server.setHandler(contexts);
        for (String name : new String[] {"app_a", "app_b"}) {
            WebAppContext context = new WebAppContext();
            context.setContextPath("/" + name);
            context.setDisplayName(name);
            context.setBaseResourceAsPath(folder);
            context.setExtraClasspath(folder + "/");
            contexts.addHandler(context);
        }
        server.start();
        for (int copy = 1; copy <= RELOADS + 1; copy++) {
            for (WebAppContext context : contexts.getDescendants(WebAppContext.class)) {
                if (copy > 1) {
                    context.stop();
                    context.start();
                }
                String name = context.getDisplayName();
                begin(context.getClassLoader(), name, copy, name.equals("app_a") ? holder : "none");
            }
        }
        System.gc();
        System.out.println("ready");
        System.in.read();
        server.stop();
        System.exit(0);
    }

    /** Starts the application while its class loader is the thread's, as Jetty does with a servlet's listeners. */
    private static void begin(ClassLoader loader, String name, int copy, String holder) throws Exception {
        Thread thread = Thread.currentThread();
        ClassLoader before = thread.getContextClassLoader();
        thread.setContextClassLoader(loader);
        try {
            loader.loadClass("app.Application")
                    .getMethod("start", String.class, int.class, String.class)
                    .invoke(null, name, copy, holder);
        } finally {
            thread.setContextClassLoader(before);
        }
    }
}
