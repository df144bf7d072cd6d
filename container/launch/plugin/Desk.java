import com.amazonaws.ml.mms.http.HttpRequestHandler;
import com.amazonaws.ml.mms.http.HttpRequestHandlerChain;
import io.netty.channel.ChannelHandlerContext;
import io.netty.handler.codec.http.FullHttpRequest;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/**
 * Hands requests on to MMS. It copies a body to its heap on the thread that brings it, some 10 ms for 24 MB, so a large one is
 * brought by a thread for these alone, one after another, and an event loop goes on with its other connections.
 *
 * <p>Rule: MMS answers from any thread, and of one connection there is one request at a time; so nothing here keeps an order.
 */
class Desk extends HttpRequestHandler {

    private static final int LARGE_BYTES = 128 * 1024; // copied in 0.05 ms, which is about what handing it over takes
    private static final ExecutorService LARGE =
            Executors.newSingleThreadExecutor(
                    task -> {
                        Thread thread = new Thread(task, "large-bodies");
                        thread.setDaemon(true);
                        return thread;
                    });

    Desk(HttpRequestHandlerChain handlers) {
        super(handlers);
    }

    @Override
    protected void channelRead0(ChannelHandlerContext ctx, FullHttpRequest request) {
        if (request.content().readableBytes() <= LARGE_BYTES) {
            handOn(ctx, request);
            return;
        }
        request.retain();
        LARGE.execute(() -> bring(ctx, request));
    }

    /** On this thread. */
    final void handOn(ChannelHandlerContext ctx, FullHttpRequest request) {
        super.channelRead0(ctx, request);
    }

    private void bring(ChannelHandlerContext ctx, FullHttpRequest request) {
        try {
            if (ctx.channel().isActive()) { // else its caller has gone while it waited
                handOn(ctx, request);
            }
        } finally {
            request.release();
        }
    }
}
