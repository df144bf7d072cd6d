import com.amazonaws.ml.mms.archive.ModelNotFoundException;
import com.amazonaws.ml.mms.http.HttpRequestHandler;
import com.amazonaws.ml.mms.http.HttpRequestHandlerChain;
import com.amazonaws.ml.mms.util.NettyUtils;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelOutboundHandler;
import io.netty.channel.ChannelOutboundHandlerAdapter;
import io.netty.channel.ChannelPromise;
import io.netty.handler.codec.http.FullHttpRequest;
import io.netty.handler.codec.http.FullHttpResponse;
import io.netty.handler.codec.http.HttpMethod;
import io.netty.handler.codec.http.HttpResponseStatus;
import io.netty.handler.codec.http.QueryStringDecoder;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.concurrent.Executor;

/**
 * One connection's way in. Invokes are counted through the turnstile, from here to their answer; what changes models is
 * handled on a thread of its own; everything goes on to MMS.
 *
 * <p>Fields are touched on the connection's event loop only.
 */
final class Door extends HttpRequestHandler {

    static final String RESTARTING = "the runtime has ended and is being started again; try again";
    private static final String NOWHERE = "";

    private final Turnstile turnstile;
    private final Executor changes;
    private final Deque<String> unanswered = new ArrayDeque<>(); // for each request, the model it is inside of

    Door(HttpRequestHandlerChain handlers, Turnstile turnstile, Executor changes) {
        super(handlers);
        this.turnstile = turnstile;
        this.changes = changes;
    }

    @Override
    protected void channelRead0(ChannelHandlerContext ctx, FullHttpRequest request) {
        String[] segments = segments(request);
        if (Models.isChange(request.method(), segments)) {
            unanswered.add(NOWHERE);
            request.retain();
            try {
                changes.execute(() -> change(ctx, request));
            } catch (Throwable t) { // no thread to be had
                request.release();
                throw t;
            }
            return;
        }
        String name = invoked(request, segments);
        if (name.isEmpty() || turnstile.enter(name)) {
            unanswered.add(name);
            super.channelRead0(ctx, request);
        } else {
            unanswered.add(NOWHERE);
            NettyUtils.requestReceived(ctx.channel(), request);
            NettyUtils.sendError(
                    ctx, HttpResponseStatus.NOT_FOUND, new ModelNotFoundException("Model not found: " + name));
        }
    }

    private void change(ChannelHandlerContext ctx, FullHttpRequest request) {
        try {
            super.channelRead0(ctx, request);
        } finally {
            request.release();
        }
    }

    @Override
    public void channelInactive(ChannelHandlerContext ctx) throws Exception {
        while (!unanswered.isEmpty()) { // nobody waits for these any more
            answered();
        }
        super.channelInactive(ctx);
    }

    /** Sees what MMS writes. */
    ChannelOutboundHandler answers() {
        return new ChannelOutboundHandlerAdapter() {
            @Override
            public void write(ChannelHandlerContext ctx, Object message, ChannelPromise promise) throws Exception {
                if (message instanceof FullHttpResponse) {
                    answered();
                }
                super.write(ctx, message, promise);
            }
        };
    }

    private void answered() {
        String name = unanswered.poll();
        if (name != null && !name.isEmpty()) {
            turnstile.leave(name);
        }
    }

    private static String[] segments(FullHttpRequest request) {
        try {
            return new QueryStringDecoder(request.uri()).path().split("/");
        } catch (IllegalArgumentException e) { // MMS will say what it thinks of such a path
            return new String[0];
        }
    }

    /** The model that MMS will pass a request to, by the same rules; empty for none. */
    private static String invoked(FullHttpRequest request, String[] segments) {
        if (HttpMethod.OPTIONS.equals(request.method()) || segments.length < 2) {
            return NOWHERE;
        }
        switch (segments[1]) {
            case "models":
                return segments.length == 4 ? segments[2] : NOWHERE;
            case "predictions":
                return segments.length > 2 ? segments[2] : NOWHERE;
            case "invocations":
                String name = NettyUtils.getParameter(new QueryStringDecoder(request.uri()), "model_name", null);
                return name == null ? NOWHERE : name;
            default:
                return segments.length == 3 && "predict".equals(segments[2]) ? segments[1] : NOWHERE;
        }
    }
}
