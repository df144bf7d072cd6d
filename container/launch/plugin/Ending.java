import java.io.IOException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * Whether this server is about to end. Who starts it says so with a byte on its standard input: from then on each answer is the
 * last on its connection, so that callers and balancers go elsewhere by themselves. When that input ends no connection is taken
 * any more: who has not gone yet meets a closed door, and no call that has reached the runtime is cut off.
 */
final class Ending {

    private static final int MORE_MS = 2000; // the supervisor kills us after 3 s
    private static final int LOOK_MS = 10;
    private static final AtomicInteger UNSENT = new AtomicInteger();

    private static volatile boolean hasBegun;

    private Ending() {}

    static boolean hasBegun() {
        return hasBegun;
    }

    /** A large answer is on its way to a caller, who takes as long for it as he takes. */
    static void sends() {
        UNSENT.incrementAndGet();
    }

    static void hasSent() {
        UNSENT.decrementAndGet();
    }

    /** For the runtime an answer is over when it is here, and then all of us are told to end. */
    private static void letAnswersGo() {
        long last = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(MORE_MS);
        try {
            while (UNSENT.get() > 0 && System.nanoTime() < last) {
                Thread.sleep(LOOK_MS);
            }
        } catch (InterruptedException e) { // nobody does
            return;
        }
    }

    /**
     * @param shut run when no more connections are to be taken
     */
    static void await(Runnable shut) {
        Thread thread = new Thread(() -> read(shut), "ending");
        thread.setDaemon(true);
        thread.start();
        Runtime.getRuntime().addShutdownHook(new Thread(Ending::letAnswersGo, "answers"));
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
