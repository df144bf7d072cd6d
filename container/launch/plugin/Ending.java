import java.io.IOException;

/**
 * Whether this server is about to end: who starts it says so by closing its standard input. From then on each answer is the
 * last on its connection, so that callers and balancers go elsewhere by themselves and meet no closed door.
 */
final class Ending {

    private static volatile boolean hasBegun;

    private Ending() {}

    static boolean hasBegun() {
        return hasBegun;
    }

    static void await() {
        Thread thread = new Thread(Ending::read, "ending");
        thread.setDaemon(true);
        thread.start();
    }

    private static void read() {
        try {
            while (System.in.read() >= 0) { // nobody writes anything; if somebody does, it says nothing
                continue;
            }
        } catch (IOException e) { // then nobody can tell us
            return;
        }
        hasBegun = true;
    }
}
