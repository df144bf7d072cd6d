import com.amazonaws.ml.mms.util.ConfigManager;
import com.amazonaws.ml.mms.wlm.BatchAggregator;
import com.amazonaws.ml.mms.wlm.Model;
import com.amazonaws.ml.mms.wlm.WorkerLifeCycle;
import com.amazonaws.ml.mms.wlm.WorkerStateListener;
import com.amazonaws.ml.mms.wlm.WorkerThread;
import java.io.InputStream;
import java.io.OutputStream;
import java.util.concurrent.CompletableFuture;

/**
 * Stands where MMS keeps a model's process. There is none: all models are served by the one runtime, which is there before the
 * first of them.
 *
 * <p>The stub that stock MMS has to start instead is four threads and six descriptors in this JVM, a process, and most of the
 * time that a load takes.
 */
final class NoProcess extends WorkerThread {

    private final WorkerLifeCycle lifeCycle;

    NoProcess(Model model) {
        super(
                ConfigManager.getInstance(),
                null,
                model.getPort(),
                -1,
                model,
                new BatchAggregator(model),
                new WorkerStateListener(new CompletableFuture<>(), 1),
                0,
                true);
        lifeCycle =
                new WorkerLifeCycle(ConfigManager.getInstance(), model) {
                    @Override
                    public Process getProcess() {
                        return ENDED;
                    }
                };
    }

    @Override
    public WorkerLifeCycle getLifeCycle() {
        return lifeCycle;
    }

    @Override
    public void shutdown() {
        // there is nothing to end
    }

    private static final Process ENDED =
            new Process() {
                @Override
                public OutputStream getOutputStream() {
                    return OutputStream.nullOutputStream();
                }

                @Override
                public InputStream getInputStream() {
                    return InputStream.nullInputStream();
                }

                @Override
                public InputStream getErrorStream() {
                    return InputStream.nullInputStream();
                }

                @Override
                public int waitFor() {
                    return 0;
                }

                @Override
                public int exitValue() {
                    return 0;
                }

                @Override
                public void destroy() {
                    // it has ended
                }
            };
}
