import io.netty.buffer.ByteBuf;
import io.netty.buffer.Unpooled;
import io.netty.channel.Channel;
import io.netty.channel.ChannelDuplexHandler;
import io.netty.channel.ChannelFutureListener;
import io.netty.channel.ChannelHandler;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelPromise;
import io.netty.channel.socket.DuplexChannel;
import io.netty.handler.codec.http.DefaultFullHttpResponse;
import io.netty.handler.codec.http.DefaultHttpRequest;
import io.netty.handler.codec.http.DefaultHttpResponse;
import io.netty.handler.codec.http.FullHttpResponse;
import io.netty.handler.codec.http.HttpContent;
import io.netty.handler.codec.http.HttpHeaderNames;
import io.netty.handler.codec.http.HttpHeaderValues;
import io.netty.handler.codec.http.HttpMethod;
import io.netty.handler.codec.http.HttpRequest;
import io.netty.handler.codec.http.HttpResponse;
import io.netty.handler.codec.http.HttpResponseEncoder;
import io.netty.handler.codec.http.HttpResponseStatus;
import io.netty.handler.codec.http.HttpUtil;
import io.netty.handler.codec.http.HttpVersion;
import io.netty.handler.codec.http.LastHttpContent;
import io.netty.util.CharsetUtil;
import io.netty.util.ReferenceCountUtil;
import io.netty.util.concurrent.ScheduledFuture;
import java.io.IOException;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * One caller's connection, as RFC 9110 and 9112 have it: requests one after another, each read within bounds of size and time,
 * each answered in its turn, whoever answers it; and closed when the caller asks for it and not because of an error.
 *
 * <p>Rule: behind it there is never more than one request of a connection. So whatever is written is the answer to that one,
 * and what answers nothing is dropped.
 *
 * <p>Fields are touched on the connection's event loop only.
 */
final class Connection extends ChannelDuplexHandler {

    /**
     * What all connections share.
     *
     * @param maxBodyBytes of one request
     * @param maxAllBytes of all requests that are not answered yet, from the arrival of each piece to the answer, and of all
     *     answers in memory that their callers have not taken yet
     * @param idleSeconds for which a connection may be without a request; it may be twice as long, see {@link #lookWhetherIdle}
     */
    record Limits(
            int maxBodyBytes,
            long maxAllBytes,
            long idleSeconds,
            Words words,
            AtomicLong allBytes,
            AtomicLong answersInFiles) {
        Limits(int maxBodyBytes, long maxAllBytes, long idleSeconds, Words words) {
            this(maxBodyBytes, maxAllBytes, idleSeconds, words, new AtomicLong(), new AtomicLong());
        }
    }

    /** What there is too long a wait for. */
    private enum Wait {
        NOTHING(0),
        HEAD(10),
        BODY(60),
        READER(60), // the caller does not read its answer
        END(10); // the caller does not close, though told that we have

        final int seconds;

        Wait(int seconds) {
            this.seconds = seconds;
        }
    }

    private static final Logger LOGGER = LoggerFactory.getLogger(Connection.class);
    private static final String LOST_BODY = "the body was lost on its way to the runtime; send it again";
    private static final int SMALL_BODY_BYTES = 8 * 1024; // never refused for what others send
    private static final int PACED_BODY_BYTES = 64 * 1024; // see Pace
    private static final int ANSWERS_TO_BODIES = 8; // as many bytes as of requests may be on the disk of answers that wait
    private static final int GONE_S = 30; // a caller's: MMS works on what it has sent, and holds it, for about as long
    private static final int UNAWARE_S = 1; // of that the runtime is, and may still leave an answer
    private static final FullHttpResponse CONTINUE =
            new DefaultFullHttpResponse(HttpVersion.HTTP_1_1, HttpResponseStatus.CONTINUE, Unpooled.EMPTY_BUFFER);

    private final Limits limits;
    private final RequestDecoder decoder;
    private final Deque<Object> waiting = new ArrayDeque<>(); // decoded, and not yet its turn
    private Call call; // being received or answered; null between two
    private boolean isAsked; // it is whole and has been passed on, or refused: its answer is all that is missing
    private boolean isRefused; // it has been answered before its body was here, which is let pass
    private boolean isHere; // all of it, though a part of its body may still be on its way to its file
    private Body body; // what of it is here
    private int nBytes; // of this request, on the common account
    private boolean isInLine; // for the next read
    private boolean isOpening; // the file of its answer
    private LargeAnswer answer; // being sent from its file; null while none is
    private boolean isPumping;
    private boolean isLast; // what has been answered is the last: nothing is read any more
    private Wait wait = Wait.NOTHING;
    private ScheduledFuture<?> clock;
    private int nBegun; // requests, of which only whether there are more of them matters
    private int nBegunAtLook;
    private ScheduledFuture<?> idleLook;

    Connection(Limits limits, RequestDecoder decoder) {
        this.limits = limits;
        this.decoder = decoder;
    }

    /** Writes answers, without their bodies where HEAD was asked. */
    ChannelHandler encoder() {
        return new HttpResponseEncoder() {
            @Override
            protected boolean isContentAlwaysEmpty(HttpResponse response) {
                return call != null && call.isHead || super.isContentAlwaysEmpty(response);
            }
        };
    }

    // -- in ----------------------------------------------------------------------------------------------------------------

    @Override
    public void channelRead(ChannelHandlerContext ctx, Object message) {
        if (isLast) {
            drop(ctx, message);
            return;
        }
        waiting.add(message);
        pump(ctx);
    }

    private void drop(ChannelHandlerContext ctx, Object message) {
        if (message instanceof HttpContent content) {
            line(ctx).moved(content.content().readableBytes());
        }
        ReferenceCountUtil.release(message);
        if (!isInLine) {
            ctx.channel().config().setAutoRead(true); // to its end
        }
    }

    /**
     * Asked for after each piece. In the middle of a request the next one is read when the event loop has looked at its other
     * connections: Netty would read 64 of them before it does, 4 MiB. Of a large one it is read in its turn, see {@link Pace}.
     */
    @Override
    public void read(ChannelHandlerContext ctx) {
        boolean isBetweenRequests = call == null && !isLast;
        if (isBetweenRequests || isAsked) {
            ctx.read();
        } else if (isPaced()) {
            awaitTurn(ctx);
        } else { // what is executed without a time comes before that look
            ctx.executor().schedule(() -> readOn(ctx), 0, TimeUnit.NANOSECONDS);
        }
    }

    /** Of what is dropped, and comes in chunks, nobody knows how much there is. */
    private boolean isPaced() {
        return call == null || call.bodyBytes > PACED_BODY_BYTES || nBytes > PACED_BODY_BYTES || isRefused && call.bodyBytes < 0;
    }

    private Pace.Line line(ChannelHandlerContext ctx) {
        Pace pace = Pace.of(ctx.channel().eventLoop());
        return isLast || isRefused ? pace.dropped : pace.kept;
    }

    private void awaitTurn(ChannelHandlerContext ctx) {
        if (!isInLine) {
            isInLine = true;
            ctx.channel().config().setAutoRead(false); // else whatever comes is read at once
            line(ctx).await(() -> takeTurn(ctx));
        }
    }

    /** Read once; behind that is the next turn. What may not be read now is when that has changed, see {@link #pump}. */
    private void takeTurn(ChannelHandlerContext ctx) {
        isInLine = false;
        if (mayRead()) {
            ctx.read();
        }
    }

    /** Unless something has come meanwhile that has to wait: whoever takes that reads on. */
    private static void readOn(ChannelHandlerContext ctx) {
        if (ctx.channel().config().isAutoRead()) {
            ctx.read();
        }
    }

    /** Take what has arrived, up to the next request that has to wait for an answer. */
    private void pump(ChannelHandlerContext ctx) {
        if (isPumping) { // an answer was given at once; whoever is below goes on
            return;
        }
        isPumping = true;
        try {
            while (!isAsked && !isLast && !isMoving() && !waiting.isEmpty() && (call != null || ctx.channel().isWritable())) {
                take(ctx, waiting.poll());
            }
        } catch (Throwable t) { // whoever has called may not know whom it ends
            exceptionCaught(ctx, t);
        } finally {
            isPumping = false;
        }
        if (isLast) {
            forgetWaiting();
        }
        if (ctx.channel().config().isAutoRead() != mayRead()) {
            ctx.channel().config().setAutoRead(mayRead());
        }
    }

    private boolean mayRead() {
        return waiting.isEmpty() && !isMoving() && !isInLine;
    }

    /** Take what waits, and set the clock, where no read has led here: behind a read it is set anyway. */
    private void goOn(ChannelHandlerContext ctx) {
        pump(ctx);
        watch(ctx);
    }

    /** The caller waits for the disk so, and nobody else does. */
    private boolean isMoving() {
        return body != null && body.isMoving();
    }

    private void take(ChannelHandlerContext ctx, Object message) {
        if (message instanceof HttpRequest) {
            begin(ctx, (HttpRequest) message);
        }
        if (message instanceof HttpContent) {
            HttpContent content = (HttpContent) message;
            try {
                add(ctx, content);
            } finally {
                content.release();
            }
        }
    }

    private void begin(ChannelHandlerContext ctx, HttpRequest head) {
        nBegun++;
        call = new Call(head, limits.words());
        boolean isBroken = head.decoderResult().isFailure();
        if (call.refusal != null) {
            refuse(ctx, call.refusal, isBroken);
        } else if (call.bodyBytes > limits.maxBodyBytes()) {
            refuse(ctx, tooLarge(), true);
        } else if (call.expectsContinue) {
            ctx.writeAndFlush(CONTINUE.retainedDuplicate());
        }
    }

    private void add(ChannelHandlerContext ctx, HttpContent content) {
        if (call == null) {
            return;
        }
        ByteBuf piece = content.content();
        int size = piece.readableBytes();
        if (isPaced()) {
            line(ctx).moved(size);
        }
        if (!isRefused && content.decoderResult().isFailure()) {
            Throwable cause = content.decoderResult().cause();
            String text = cause instanceof RequestDecoder.Malformed ? cause.getMessage() : "the body's chunks cannot be read";
            refuse(ctx, limits.words().refusal(HttpResponseStatus.BAD_REQUEST, text), true);
        } else if (!isRefused && size > 0) {
            if (nBytes + (long) size > limits.maxBodyBytes()) {
                refuse(ctx, tooLarge(), true);
            } else if (limits.allBytes().addAndGet(size) > limits.maxAllBytes() && nBytes + size > SMALL_BODY_BYTES) {
                limits.allBytes().addAndGet(-size);
                String text = "too many bytes of requests are on their way; try again";
                refuse(ctx, limits.words().refusal(HttpResponseStatus.SERVICE_UNAVAILABLE, text), false);
            } else {
                nBytes += size;
                keep(ctx, piece.retain());
            }
        }
        if (content instanceof LastHttpContent) {
            isHere = true;
            passOn(ctx);
        }
    }

    private void keep(ChannelHandlerContext ctx, ByteBuf piece) {
        if (body == null) {
            body = new Body(ctx.channel(), call, () -> moved(ctx));
        }
        body.add(piece);
    }

    private void moved(ChannelHandlerContext ctx) {
        if (body.isLost()) {
            refuse(ctx, limits.words().refusal(HttpResponseStatus.SERVICE_UNAVAILABLE, LOST_BODY), false);
        }
        if (isHere) {
            passOn(ctx);
        }
        goOn(ctx);
    }

    /** What is all here, unless its body is still on its way to its file: then that will. */
    private void passOn(ChannelHandlerContext ctx) {
        if (isRefused) {
            ended(ctx);
        } else if (body == null || body.settle()) {
            isAsked = true;
            ctx.fireChannelRead(call.whole(body == null ? Unpooled.EMPTY_BUFFER : body.whole()));
        }
    }

    private FullHttpResponse tooLarge() {
        String text = "the body is over the limit of " + limits.maxBodyBytes() + " bytes";
        return limits.words().refusal(HttpResponseStatus.REQUEST_ENTITY_TOO_LARGE, text);
    }

    /** Answer now. The rest of the body is read and dropped, so that the answer is not lost to a reset; if it is the last. */
    private void refuse(ChannelHandlerContext ctx, FullHttpResponse refusal, boolean isTheLast) {
        isRefused = true;
        release();
        if (refusal.status().code() >= 400) {
            Lane.tellRefused(refusal.status().code());
        }
        send(ctx, refusal, isTheLast || call.expectsContinue);
        ctx.flush();
    }

    // -- out ---------------------------------------------------------------------------------------------------------------

    @Override
    public void write(ChannelHandlerContext ctx, Object message, ChannelPromise promise) {
        if (!(message instanceof FullHttpResponse)) {
            ctx.write(message, promise);
            return;
        }
        FullHttpResponse response = (FullHttpResponse) message;
        if (!isAsked || isOpening) { // nobody waits for it: MMS may answer twice when a worker dies
            response.release();
            return;
        }
        String file = response.headers().get(Spool.ANSWER);
        if (file != null) {
            response.headers().remove(Spool.ANSWER);
            sendFrom(ctx, file, response);
            return;
        }
        // MMS closes behind each error, when its promise is kept. It never is: who closes is decided here.
        FullHttpResponse told = isOfDeadWorker(response) ? notNow(response, Door.RESTARTING) : response;
        if (HttpResponseStatus.SERVICE_UNAVAILABLE.equals(told.status()) && isOfMms(told)) {
            Lane.tellRefused(HttpResponseStatus.SERVICE_UNAVAILABLE.code());
        }
        sendWhole(ctx, told);
    }

    private void sendWhole(ChannelHandlerContext ctx, FullHttpResponse response) {
        send(ctx, response, false);
        ended(ctx);
        goOn(ctx);
    }

    private void sendFrom(ChannelHandlerContext ctx, String file, FullHttpResponse response) {
        isOpening = true;
        LargeAnswer.open(ctx, file, call.number, large -> opened(ctx, response, large), e -> lost(ctx, response, e));
    }

    private void opened(ChannelHandlerContext ctx, FullHttpResponse response, LargeAnswer large) {
        if (!isAsked) { // the caller has gone
            response.release();
            large.close(ctx.channel());
        } else if (limits.answersInFiles().get() + large.nBytes > ANSWERS_TO_BODIES * limits.maxAllBytes()) {
            large.close(ctx.channel());
            refuseAnswer(ctx, response, "too many answers wait to be read by their callers; try again");
        } else if (call.isStream) {
            FullHttpResponse all = response.replace(Unpooled.buffer(large.nBytes));
            response.release();
            large.addTo(ctx, all, () -> added(ctx, all), e -> lost(ctx, all, e));
            large.close(ctx.channel());
        } else {
            send(ctx, response, large);
        }
    }

    private void added(ChannelHandlerContext ctx, FullHttpResponse response) {
        if (isAsked) {
            sendWhole(ctx, response);
            ctx.flush();
        } else {
            response.release();
        }
    }

    private void lost(ChannelHandlerContext ctx, FullHttpResponse response, Throwable trouble) {
        if (isAsked) {
            LOGGER.warn("an answer is lost: {}", trouble.toString());
            refuseAnswer(ctx, response, "the answer was lost on its way from the runtime; send the request again");
        } else {
            response.release();
        }
    }

    private void refuseAnswer(ChannelHandlerContext ctx, FullHttpResponse response, String text) {
        Lane.tellRefused(HttpResponseStatus.SERVICE_UNAVAILABLE.code());
        sendWhole(ctx, notNow(response, text));
        ctx.flush();
    }

    /** MMS calls it an error of the server's when the runtime dies with a request; another is there in a second. */
    private static boolean isOfDeadWorker(FullHttpResponse response) {
        return HttpResponseStatus.INTERNAL_SERVER_ERROR.equals(response.status())
                && response.content().toString(CharsetUtil.UTF_8).contains("\"Worker died.\"");
    }

    /** Or of ours: what the runtime answers it has counted itself. MMS says the first of these when its queue is full. */
    private static boolean isOfMms(FullHttpResponse response) {
        String text = response.content().toString(CharsetUtil.UTF_8);
        return text.contains("has no worker to serve inference request") || text.contains(Door.RESTARTING);
    }

    private FullHttpResponse notNow(FullHttpResponse response, String text) {
        response.release();
        return limits.words().refusal(HttpResponseStatus.SERVICE_UNAVAILABLE, text);
    }

    private void send(ChannelHandlerContext ctx, FullHttpResponse response, boolean isTheLast) {
        FullHttpResponse told = call.isStream ? EventStream.of(response) : response;
        int nAnswered = told.content().readableBytes();
        boolean closes = finishHead(told, nAnswered, isTheLast);
        var sent = ctx.write(told);
        if (nAnswered > SMALL_BODY_BYTES) { // and so is kept by whoever asks for much and reads nothing
            limits.allBytes().addAndGet(nAnswered);
            Ending.sends();
            sent.addListener(future -> isTaken(limits.allBytes(), nAnswered));
        }
        if (closes) {
            sent.addListener((ChannelFutureListener) future -> endInPeace(ctx));
        }
    }

    private void send(ChannelHandlerContext ctx, FullHttpResponse response, LargeAnswer large) {
        release();
        answer = large;
        limits.answersInFiles().addAndGet(large.nBytes);
        Ending.sends();
        boolean closes = finishHead(response, large.nBytes, false);
        ctx.write(new DefaultHttpResponse(response.protocolVersion(), response.status(), response.headers()));
        response.release();
        large.send(ctx, () -> sent(ctx, closes));
        watch(ctx);
    }

    private void sent(ChannelHandlerContext ctx, boolean closes) {
        settleAnswer(ctx);
        ended(ctx);
        if (closes) {
            endInPeace(ctx);
        } else {
            goOn(ctx);
        }
    }

    private void settleAnswer(ChannelHandlerContext ctx) {
        if (answer != null) {
            answer.close(ctx.channel());
            isTaken(limits.answersInFiles(), answer.nBytes);
            answer = null;
        }
    }

    private static void isTaken(AtomicLong account, int nAnswered) {
        account.addAndGet(-nAnswered);
        Ending.hasSent();
    }

    /** Whether the connection is closed behind this answer. */
    private boolean finishHead(HttpResponse head, int nBytes, boolean isTheLast) {
        boolean closes = isTheLast || Ending.hasBegun() || !HttpUtil.isKeepAlive(call.head);
        head.headers().set(HttpHeaderNames.CONNECTION, closes ? HttpHeaderValues.CLOSE : HttpHeaderValues.KEEP_ALIVE);
        HttpUtil.setContentLength(head, nBytes);
        isLast = closes;
        return closes;
    }

    /** A request is over: answered, and read to its end. */
    private void ended(ChannelHandlerContext ctx) {
        release();
        call = null;
        isAsked = false;
        isRefused = false;
        isHere = false;
        isOpening = false;
        watch(ctx);
    }

    private void release() {
        if (body != null) {
            body.release();
            body = null;
        }
        if (nBytes > 0) {
            limits.allBytes().addAndGet(-nBytes);
            nBytes = 0;
        }
    }

    /** Closing at once would reset the connection if the caller is still sending, and its answer with it (RFC 9112, 9.6). */
    private void endInPeace(ChannelHandlerContext ctx) {
        Channel channel = ctx.channel();
        if (call == null || !(channel instanceof DuplexChannel)) { // all of the request has been read
            channel.close();
            return;
        }
        ((DuplexChannel) channel).shutdownOutput();
        channel.config().setAutoRead(true);
        watch(ctx);
    }

    // -- time --------------------------------------------------------------------------------------------------------------

    @Override
    public void channelReadComplete(ChannelHandlerContext ctx) throws Exception {
        watch(ctx);
        super.channelReadComplete(ctx);
    }

    @Override
    public void channelWritabilityChanged(ChannelHandlerContext ctx) throws Exception {
        goOn(ctx);
        super.channelWritabilityChanged(ctx);
    }

    /** Set the clock for what is waited for now. It runs from when the wait began, however often a byte comes. */
    private void watch(ChannelHandlerContext ctx) {
        Wait now = waitedFor(ctx);
        if (now == wait) {
            return;
        }
        if (clock != null) {
            clock.cancel(false);
            clock = null;
        }
        wait = now;
        if (now != Wait.NOTHING) {
            clock = ctx.executor().schedule(() -> tooLate(ctx), now.seconds, TimeUnit.SECONDS);
        }
    }

    @Override
    public void channelActive(ChannelHandlerContext ctx) throws Exception {
        nextIdleLook(ctx);
        super.channelActive(ctx);
    }

    private void nextIdleLook(ChannelHandlerContext ctx) {
        idleLook = ctx.executor().schedule(() -> lookWhetherIdle(ctx), limits.idleSeconds(), TimeUnit.SECONDS);
    }

    /** Looked at now and then, so that a request does not set a clock: a warm one takes some microseconds in all. */
    private void lookWhetherIdle(ChannelHandlerContext ctx) {
        if (nBegun == nBegunAtLook && call == null && waitedFor(ctx) == Wait.NOTHING) {
            ctx.close();
            return;
        }
        nBegunAtLook = nBegun;
        nextIdleLook(ctx);
    }

    private Wait waitedFor(ChannelHandlerContext ctx) {
        if (answer != null) {
            return Wait.READER;
        }
        if (isLast) {
            return Wait.END;
        }
        if (isAsked) {
            return Wait.NOTHING;
        }
        if (call != null) {
            return Wait.BODY;
        }
        if (!ctx.channel().isWritable()) {
            return Wait.READER;
        }
        return decoder.isInsideHead() ? Wait.HEAD : Wait.NOTHING;
    }

    private void tooLate(ChannelHandlerContext ctx) {
        clock = null;
        if (isLast || wait == Wait.READER || isRefused) {
            ctx.close();
            return;
        }
        if (call == null) {
            call = new Call(new DefaultHttpRequest(HttpVersion.HTTP_1_0, HttpMethod.GET, "/"), limits.words());
        }
        String what = wait == Wait.HEAD ? "head" : "body";
        String text = "the request's " + what + " did not arrive within " + wait.seconds + " s";
        refuse(ctx, limits.words().refusal(HttpResponseStatus.REQUEST_TIMEOUT, text), true);
        watch(ctx);
    }

    // -- the end -----------------------------------------------------------------------------------------------------------

    @Override
    public void channelInactive(ChannelHandlerContext ctx) throws Exception {
        isLast = true;
        if (isAsked && answer == null && call.number != 0) {
            long number = call.number;
            Lane.tellGone(number);
            Runnable remove = () -> Spool.execute(ctx.channel(), () -> Spool.removeAnswer(number));
            ctx.executor().schedule(remove, UNAWARE_S, TimeUnit.SECONDS);
        }
        if (isAsked && nBytes > SMALL_BODY_BYTES) {
            int held = nBytes;
            nBytes = 0;
            ctx.executor().schedule(() -> limits.allBytes().addAndGet(-held), GONE_S, TimeUnit.SECONDS);
        }
        isAsked = false; // an answer that comes now is nobody's
        settleAnswer(ctx);
        release();
        forgetWaiting();
        if (clock != null) {
            clock.cancel(false);
            clock = null;
        }
        if (idleLook != null) {
            idleLook.cancel(false);
        }
        super.channelInactive(ctx);
    }

    private void forgetWaiting() {
        waiting.forEach(ReferenceCountUtil::release);
        waiting.clear();
    }

    @Override
    public void exceptionCaught(ChannelHandlerContext ctx, Throwable cause) {
        if (!(cause instanceof IOException)) { // callers that go are no news, and a line for each would be a way to fill the log
            LOGGER.error("a connection is closed after a fault of ours", cause);
        }
        ctx.close();
    }
}
