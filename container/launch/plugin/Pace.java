import io.netty.channel.EventLoop;
import io.netty.util.concurrent.FastThreadLocal;
import java.util.concurrent.TimeUnit;

/**
 * Of an event loop: while it passes small requests on, large bodies and answers go through it a piece at a time, with a pause
 * between two, whosever they are. Each piece is work for the spool's thread and the runtime too, and callers who send as fast
 * as they can would keep all cores busy with it. A loop without small requests does not pause.
 *
 * <p>Used on the event loop only.
 */
final class Pace {

    static final long PAUSE_NS = TimeUnit.MILLISECONDS.toNanos(4) / Runtime.getRuntime().availableProcessors();
    static final long WATCHED_NS = TimeUnit.SECONDS.toNanos(1); // behind each small request

    private static final FastThreadLocal<Pace> PACES =
            new FastThreadLocal<>() {
                @Override
                protected Pace initialValue() {
                    return new Pace();
                }
            };

    private boolean hasSmall;
    private long lastSmall; // System.nanoTime(), as the line below
    private long nextPiece;

    /** A small request has come to this loop. */
    static void small() {
        PACES.get().small(System.nanoTime());
    }

    /** Go on with a body or an answer when the loop has looked at its other connections, and it is a piece's turn. */
    static void schedule(EventLoop loop, Runnable next) {
        // what is executed without a time comes before that look
        loop.schedule(next, PACES.get().untilNextPiece(System.nanoTime()), TimeUnit.NANOSECONDS);
    }

    void small(long now) {
        if (!hasSmall) {
            hasSmall = true;
            nextPiece = now;
        }
        lastSmall = now;
    }

    long untilNextPiece(long now) {
        if (!hasSmall || now - lastSmall > WATCHED_NS) {
            hasSmall = false;
            return 0;
        }
        long turn = nextPiece - now > 0 ? nextPiece : now;
        nextPiece = turn + PAUSE_NS;
        return turn - now;
    }
}
