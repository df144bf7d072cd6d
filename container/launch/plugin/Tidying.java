import com.amazonaws.ml.mms.wlm.ModelManager;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * Gives back the Java heap of unloaded models. Nothing else would: an endpoint that is idle after a thousand unloads allocates
 * nothing, so it never collects.
 */
final class Tidying {

    private static final long AFTER_S = 5;
    private static final long THREADS_S = 65; // MMS keeps the threads of workers for a minute, and they keep what they used
    private static final int FEW = 32;

    private final AtomicInteger unloaded = new AtomicInteger();
    private final AtomicBoolean isPlanned = new AtomicBoolean();
    private final AtomicBoolean isFollowed = new AtomicBoolean();

    /** A model is about to leave. */
    void unloaded() {
        unloaded.incrementAndGet();
        if (isPlanned.compareAndSet(false, true)) {
            ModelManager.getInstance().getScheduler().schedule(this::tidy, AFTER_S, TimeUnit.SECONDS);
        }
    }

    /** A collection costs a pause in proportion to what is left, so as much must have gone. */
    private void tidy() {
        isPlanned.set(false);
        int left = ModelManager.getInstance().getModels().size();
        if (left == 0 || unloaded.get() >= Math.max(FEW, left)) {
            unloaded.set(0);
            System.gc();
            if (isFollowed.compareAndSet(false, true)) {
                ModelManager.getInstance().getScheduler().schedule(this::tidyThreads, THREADS_S, TimeUnit.SECONDS);
            }
        }
    }

    private void tidyThreads() {
        isFollowed.set(false);
        System.gc();
    }
}
