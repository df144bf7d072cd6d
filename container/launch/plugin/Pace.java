import io.netty.channel.EventLoop;
import io.netty.util.concurrent.EventExecutor;
import io.netty.util.concurrent.FastThreadLocal;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.concurrent.TimeUnit;
import java.util.function.LongSupplier;

/**
 * How fast large bodies and answers go through an event loop. Each piece of them is work for the spool's thread and the
 * runtime too, and callers who send as fast as they can would keep all cores busy with it. So while the loop passes small
 * requests on, whoever wants to go on with a large one waits in a line; behind each turn there is a pause, as long as its bytes
 * ask for. A loop without small requests does not pause.
 *
 * <p>Rule: who waits has one place in the line, and it is what has moved that is paid for, not what was meant to.
 *
 * <p>Used on the event loop only.
 */
final class Pace {

    /** For 64 KiB. With two cores 2 ms: with 1 ms small requests waited longer, see benchmarks/NOTES.md. Others were not tried. */
    static final long PAUSE_NS = TimeUnit.MILLISECONDS.toNanos(4) / Runtime.getRuntime().availableProcessors();

    static final long WATCHED_NS = TimeUnit.SECONDS.toNanos(1); // behind each small request
    static final FastThreadLocal<Pace> OF_LOOP = new FastThreadLocal<>();

    final Line kept = new Line(); // of bodies and answers
    final Line dropped = new Line(); // of what is only read, so that its caller hears why; it is in nobody else's way
    private final EventExecutor loop;
    private final LongSupplier clock;
    private boolean hasSmall;
    private long lastSmall; // of the clock

    /**
     * @param clock in ns
     */
    Pace(EventExecutor loop, LongSupplier clock) {
        this.loop = loop;
        this.clock = clock;
    }

    /** That of the loop which calls. */
    static Pace of(EventLoop loop) {
        Pace pace = OF_LOOP.get();
        if (pace == null) {
            pace = new Pace(loop, System::nanoTime);
            OF_LOOP.set(pace);
        }
        return pace;
    }

    /** A small request has come to this loop. */
    void small() {
        long now = clock.getAsLong();
        if (!isWatched(now)) {
            kept.nextTurn = now;
            dropped.nextTurn = now;
        }
        hasSmall = true;
        lastSmall = now;
    }

    private boolean isWatched(long now) {
        return hasSmall && now - lastSmall < WATCHED_NS;
    }

    final class Line {

        private final Deque<Runnable> waiting = new ArrayDeque<>();
        private boolean isTimed; // a timer is set for the first of them
        private long nextTurn; // of the clock

        /** So many bytes have gone through the loop. */
        void moved(int nBytes) {
            long now = clock.getAsLong();
            if (isWatched(now)) {
                nextTurn = (nextTurn - now > 0 ? nextTurn : now) + PAUSE_NS * nBytes / RequestDecoder.PIECE_BYTES;
            }
        }

        /** Run it in its turn, and when the loop has looked at its other connections. */
        void await(Runnable next) {
            waiting.add(next);
            if (!isTimed) {
                time();
            }
        }

        private void time() {
            long now = clock.getAsLong();
            long wait = isWatched(now) ? Math.min(nextTurn - now, lastSmall + WATCHED_NS - now) : 0;
            isTimed = true;
            // what is executed without a time comes before that look
            loop.schedule(this::turn, Math.max(0, wait), TimeUnit.NANOSECONDS);
        }

        private void turn() {
            isTimed = false;
            long now = clock.getAsLong();
            int n = !isWatched(now) ? waiting.size() : nextTurn - now > 0 ? 0 : 1;
            try {
                for (; n > 0; n--) {
                    waiting.remove().run();
                }
            } finally {
                if (!waiting.isEmpty() && !isTimed) {
                    time();
                }
            }
        }
    }
}
