import java.io.IOException;

/**
 * Whether this server is about to end. Who starts it says so with a byte on its standard input: from then on each answer is the
 * last on its connection, so that callers and balancers go elsewhere by themselves. When that input ends no connection is taken
 * any more: who has not gone yet meets a closed door, and nobody is cut off in the middle of a call.
 */
final class Ending {

    private static volatile boolean hasBegun;

    private Ending() {}

    static boolean hasBegun() {
        return hasBegun;
    }

    /**
     * @param shut run when no more connections are to be taken
     */
    static void await(Runnable shut) {
        Thread thread = new Thread(() -> read(shut), "ending");
        thread.setDaemon(true);
        thread.start();
    }

    private static void read(Runnable shut) {
        try {
            while (System.in.read() >= 0) {
                hasBegun = true;
            }
        } catch (IOException e) { // then nobody can tell us
            return;
        }
        hasBegun = true;
        shut.run();
    }
}
