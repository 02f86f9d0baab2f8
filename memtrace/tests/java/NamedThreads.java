/** Starts one thread for each name that a thread dump makes hard to read, says so, and waits. */
public class NamedThreads {
    public static void main(String[] args) throws Exception {
        String[] names = {
            "plain",
            "",
            "with \"quotes\" inside",
            "\"fake\" #9 prio=5 tid=0x1 nid=0x99 x",
            "back\\slash; tab\t, escape \u001b[31m",
            "two\nlines",
            "gr\u00fcn \u65e5\u672c",
        };
        for (String name : names) {
            Thread thread = new Thread(NamedThreads::sleep, name);
            thread.setDaemon(true);
            thread.start();
        }
        System.out.println("ready");
        sleep();
    }

    private static void sleep() {
        try {
            Thread.sleep(600_000);
        } catch (InterruptedException e) {
            throw new IllegalStateException(e);
        }
    }
}
