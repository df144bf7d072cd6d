import com.amazonaws.ml.mms.util.ConfigManager;
import io.netty.bootstrap.Bootstrap;
import io.netty.buffer.ByteBuf;
import io.netty.channel.Channel;
import io.netty.channel.ChannelFutureListener;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInboundHandlerAdapter;
import io.netty.channel.ChannelOption;
import io.netty.channel.EventLoop;
import io.netty.channel.EventLoopGroup;
import io.netty.channel.FixedRecvByteBufAllocator;
import io.netty.channel.WriteBufferWaterMark;
import io.netty.channel.epoll.Epoll;
import io.netty.channel.epoll.EpollDomainSocketChannel;
import io.netty.channel.unix.DomainSocketAddress;
import io.netty.handler.codec.ByteToMessageDecoder;
import io.netty.handler.codec.http.DefaultFullHttpResponse;
import io.netty.handler.codec.http.FullHttpResponse;
import io.netty.handler.codec.http.HttpHeaderNames;
import io.netty.handler.codec.http.HttpHeaders;
import io.netty.handler.codec.http.HttpMethod;
import io.netty.handler.codec.http.HttpResponseStatus;
import io.netty.handler.codec.http.HttpVersion;
import io.netty.util.AsciiString;
import io.netty.util.concurrent.FastThreadLocal;
import java.nio.charset.StandardCharsets;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.List;
import java.util.UUID;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;

/**
 * The way past MMS: what looks like a small request for a model in memory goes from the caller's event loop straight to the
 * runtime, and its answer back, without a thread being woken in this JVM. Each event loop has one lane. The frames are told in
 * container/link/lane.py, the other end is container/worker/lane.py.
 *
 * <p>Rule: a lane is never the only way. What the runtime does not answer at once, what does not fit, and all that is on a lane
 * when it breaks goes on to MMS, once; a request is scored twice then, at worst.
 *
 * <p>All of it is touched on the lane's event loop only.
 */
final class Lane {

    private static final String SOCKET = System.getProperty("mme.lane");
    private static final int READ_BYTES = 16 * 1024;
    private static final int MAX_FRAMES = 512; // on a lane, unanswered
    private static final int MAX_BYTES = 1 << 20; // written, and not yet taken by the runtime
    private static final int PAUSE_MS = 100; // between a lane's end and the next
    private static final int STUCK_S = 10; // without an answer: MMS's way has limits and words for that
    private static final int LOOK_S = 1;

    private static final int GREETING = 0x4D4D454C; // MMEL
    private static final int GREETING_BYTES = 8;
    private static final int HEAD_BYTES = 36 + 2 + 2 + 1 + 1 + 1;
    private static final int REPLY_HEAD_BYTES = 2 + 1 + 2;
    private static final int NOT_AT_ONCE = 0;
    private static final int NOTE = 1 << 31; // in the place of a request's length
    private static final int NOTE_BYTES = HEAD_BYTES; // so that the runtime has to wait for no less than it has to for a request
    private static final byte GONE = 1;
    private static final byte REFUSED = 2;

    private static final AsciiString REQUEST_ID = AsciiString.cached("x-request-id");
    private static final AsciiString PRAGMA = AsciiString.cached("Pragma");
    private static final AsciiString CACHE_CONTROL = AsciiString.cached("Cache-Control");
    private static final AsciiString EXPIRES = AsciiString.cached("Expires");
    private static final AsciiString NO_CACHE = AsciiString.cached("no-cache");
    private static final AsciiString NO_STORE = AsciiString.cached("no-cache; no-store, must-revalidate, private");
    private static final AsciiString LONG_AGO = AsciiString.cached("Thu, 01 Jan 1970 00:00:00 UTC");

    private static final FastThreadLocal<Lane> LANES = new FastThreadLocal<>();

    private final EventLoop loop;
    private final Deque<Traveller> inside = new ArrayDeque<>(); // in the order of their replies
    private final Runnable writeTurn = this::writeTurn;
    private Channel channel; // null between two
    private int maxBodyBytes = -1; // as the runtime has said; until then nothing goes this way
    private ByteBuf turn; // the frames of this turn of the loop: one write for all of them

    private Lane(EventLoop loop) {
        this.loop = loop;
        loop.scheduleWithFixedDelay(this::look, LOOK_S, LOOK_S, TimeUnit.SECONDS);
        connect();
    }

    /** Before the first caller comes. Without Netty's own epoll, which a unix socket needs, there are none. */
    static void openOn(EventLoopGroup loops) {
        if (Epoll.isAvailable() && ConfigManager.getInstance().useNativeIo()) {
            loops.forEach(loop -> loop.execute(() -> LANES.set(new Lane((EventLoop) loop))));
        }
    }

    // -- from the caller -----------------------------------------------------------------------------------------------

    /** A request on the lane, kept until its reply. */
    private record Traveller(Ramp ramp, ChannelHandlerContext ctx, Call.Whole request, String model, String id, long since) {}

    /** Where requests of one connection leave the way to MMS for the lane. */
    static final class Ramp extends ChannelInboundHandlerAdapter {

        private static final int SMALL_BYTES = 8 * 1024;
        private static final String POOL = "/predictions/segments"; // as container/launch/mms.py names it
        private static final String MODELS = "/models/";
        private static final String INVOKE = "/invoke";

        private final Turnstile turnstile;

        /** @param turnstile of hosted mode, where a request is of the model in its path; null where it names a target */
        Ramp(Turnstile turnstile) {
            this.turnstile = turnstile;
        }

        @Override
        public void channelRead(ChannelHandlerContext ctx, Object message) {
            Call.Whole request = (Call.Whole) message;
            if (request.call.isScoring && isSmall(request.content().readableBytes())) {
                Pace.of(ctx.channel().eventLoop()).small();
            }
            Lane lane = LANES.get();
            if (lane != null && lane.isOpenFor(request)) {
                String model = turnstile == null ? targetOf(request) : modelOf(request.uri());
                if (model != null && (turnstile == null || turnstile.enter(model))) {
                    lane.send(this, ctx, request, model);
                    return;
                }
            }
            request.call.goesToMms();
            ctx.fireChannelRead(request);
        }

        /** Empty where the custom attributes may name it; null where the request goes elsewhere. */
        private static String targetOf(Call.Whole request) {
            String uri = request.uri();
            boolean isOurs =
                    uri.equals("/invocations")
                            || uri.startsWith(POOL) && (uri.length() == POOL.length() || uri.charAt(POOL.length()) == '/');
            if (!isOurs || request.call.target == null && request.call.attributes == null) {
                return null;
            }
            return request.call.target == null ? "" : request.call.target.toString();
        }

        private static String modelOf(String uri) {
            int start = MODELS.length();
            int end = uri.length() - INVOKE.length();
            boolean isInvoke = start < end && uri.startsWith(MODELS) && uri.endsWith(INVOKE);
            return isInvoke && uri.indexOf('/', start) == end ? uri.substring(start, end) : null;
        }

        /** Of a body in a file nothing is here. */
        private static boolean isSmall(int nBytes) {
            return 0 < nBytes && nBytes <= SMALL_BYTES;
        }

        private void leave(String model) {
            if (turnstile != null) {
                turnstile.leave(model);
            }
        }
    }

    private boolean isOpenFor(Call.Whole request) {
        Call call = request.call;
        return request.content().readableBytes() <= maxBodyBytes
                && call.isScoring
                && call.isPlain
                && HttpMethod.POST.equals(request.method())
                && sizeOf(call.contentType) < 256
                && sizeOf(call.accept) < 256
                && sizeOf(call.inferenceId) < 256
                && inside.size() < MAX_FRAMES
                && channel != null
                && channel.isWritable();
    }

    private void send(Ramp ramp, ChannelHandlerContext ctx, Call.Whole request, String model) {
        ThreadLocalRandom random = ThreadLocalRandom.current();
        long high = random.nextLong() & ~0xF000L | 0x4000L;
        String id = new UUID(high, random.nextLong() >>> 2 | Long.MIN_VALUE).toString();
        ByteBuf turn = turn();
        Call call = request.call;
        ByteBuf body = request.content();
        int nTexts = model.length() + sizeOf(call.attributes) + sizeOf(call.contentType) + sizeOf(call.accept);
        nTexts += sizeOf(call.inferenceId);
        turn.writeInt(HEAD_BYTES + nTexts + body.readableBytes());
        turn.writeCharSequence(id, StandardCharsets.US_ASCII);
        turn.writeShort(model.length()).writeShort(sizeOf(call.attributes));
        turn.writeByte(sizeOf(call.contentType)).writeByte(sizeOf(call.accept)).writeByte(sizeOf(call.inferenceId));
        write(model);
        write(call.attributes);
        write(call.contentType);
        write(call.accept);
        write(call.inferenceId);
        turn.writeBytes(body, body.readerIndex(), body.readableBytes());
        inside.add(new Traveller(ramp, ctx, request, model, id, System.nanoTime()));
    }

    // -- notes, which nobody answers -----------------------------------------------------------------------------------

    /** A caller has gone while MMS or the runtime works on its request. */
    static void tellGone(long number) {
        note(GONE, number);
    }

    /** A request was refused here, and the runtime will hear nothing else of it. */
    static void tellRefused(int status) {
        note(REFUSED, status);
    }

    /** Without a lane to tell it on, or with one that is full, it is not told: nothing depends on it. */
    private static void note(byte kind, long value) {
        Lane lane = LANES.get();
        if (lane == null || lane.channel == null || lane.maxBodyBytes < 0 || !lane.channel.isWritable()) {
            return;
        }
        ByteBuf turn = lane.turn();
        turn.writeInt(NOTE | NOTE_BYTES).writeByte(kind).writeLong(value).writeZero(NOTE_BYTES - 1 - Long.BYTES);
    }

    /** Where frames of this turn of the loop are gathered. */
    private ByteBuf turn() {
        if (turn == null) {
            turn = channel.alloc().directBuffer(READ_BYTES);
            loop.execute(writeTurn);
        }
        return turn;
    }

    private static int sizeOf(CharSequence text) {
        return text == null ? 0 : text.length();
    }

    /** As it came: Netty reads a head's bytes as Latin-1. */
    private void write(CharSequence text) {
        if (text != null) {
            turn.writeCharSequence(text, StandardCharsets.ISO_8859_1);
        }
    }

    private void writeTurn() {
        ByteBuf frames = turn;
        turn = null;
        if (frames == null) { // the lane was lost meanwhile
            return;
        }
        channel.writeAndFlush(frames, channel.voidPromise());
    }

    // -- from the runtime ----------------------------------------------------------------------------------------------

    private void connect() {
        new Bootstrap()
                .group(loop)
                .channel(EpollDomainSocketChannel.class)
                .option(ChannelOption.RCVBUF_ALLOCATOR, new FixedRecvByteBufAllocator(READ_BYTES))
                .option(ChannelOption.WRITE_BUFFER_WATER_MARK, new WriteBufferWaterMark(MAX_BYTES / 2, MAX_BYTES))
                .handler(new Replies())
                .connect(new DomainSocketAddress(SOCKET))
                .addListener((ChannelFutureListener) future -> connectAgainUnless(future.isSuccess()));
    }

    private void connectAgainUnless(boolean isConnected) {
        if (!isConnected) {
            loop.schedule(this::connect, PAUSE_MS, TimeUnit.MILLISECONDS);
        }
    }

    /** One connection to one runtime. */
    private final class Replies extends ByteToMessageDecoder {

        @Override
        public void channelActive(ChannelHandlerContext ctx) {
            channel = ctx.channel();
        }

        @Override
        protected void decode(ChannelHandlerContext ctx, ByteBuf in, List<Object> out) {
            if (maxBodyBytes < 0) {
                greeted(in);
                return;
            }
            while (in.readableBytes() >= Integer.BYTES) {
                int length = in.getInt(in.readerIndex());
                if (in.readableBytes() - Integer.BYTES < length) {
                    return;
                }
                in.skipBytes(Integer.BYTES);
                replied(in.readSlice(length));
            }
        }

        private void greeted(ByteBuf in) {
            if (in.readableBytes() < GREETING_BYTES) {
                return;
            }
            if (in.readInt() != GREETING) {
                throw new IllegalStateException("no greeting");
            }
            maxBodyBytes = in.readInt();
        }

        @Override
        public void channelInactive(ChannelHandlerContext ctx) throws Exception {
            super.channelInactive(ctx); // reads what has come before the end
            lost();
            connectAgainUnless(false);
        }

        @Override
        public void exceptionCaught(ChannelHandlerContext ctx, Throwable cause) {
            ctx.close();
        }
    }

    private void replied(ByteBuf reply) {
        Traveller one = inside.remove();
        int code = reply.readUnsignedShort();
        if (code == NOT_AT_ONCE) {
            goOn(one);
            return;
        }
        one.ramp.leave(one.model);
        one.request.release();
        if (one.ctx.channel().isActive()) { // else the caller has gone
            one.ctx.writeAndFlush(response(one.id, code, reply), one.ctx.voidPromise());
        }
    }

    private static FullHttpResponse response(String id, int code, ByteBuf reply) {
        int nContentType = reply.readUnsignedByte();
        int nHeaders = reply.readUnsignedShort();
        CharSequence contentType = reply.readCharSequence(nContentType, StandardCharsets.UTF_8);
        ByteBuf texts = reply.readSlice(nHeaders);
        FullHttpResponse response =
                new DefaultFullHttpResponse(
                        HttpVersion.HTTP_1_1,
                        HttpResponseStatus.valueOf(code),
                        reply.readRetainedSlice(reply.readableBytes()),
                        false);
        HttpHeaders headers = response.headers();
        headers.set(HttpHeaderNames.CONTENT_TYPE, contentType);
        while (texts.isReadable()) {
            headers.set(text(texts), text(texts));
        }
        headers.set(REQUEST_ID, id); // and the rest as MMS has it
        headers.set(PRAGMA, NO_CACHE);
        headers.set(CACHE_CONTROL, NO_STORE);
        headers.set(EXPIRES, LONG_AGO);
        return response;
    }

    private static CharSequence text(ByteBuf texts) {
        CharSequence text = texts.readCharSequence(texts.bytesBefore((byte) 0), StandardCharsets.UTF_8);
        texts.skipBytes(1);
        return text;
    }

    // -- when it goes MMS's way after all ------------------------------------------------------------------------------

    private static void goOn(Traveller one) {
        one.ramp.leave(one.model);
        if (one.ctx.channel().isActive()) {
            one.request.call.goesToMms();
            one.ctx.fireChannelRead(one.request);
        } else {
            one.request.release();
        }
    }

    private void lost() {
        channel = null;
        maxBodyBytes = -1;
        if (turn != null) {
            turn.release();
            turn = null;
        }
        Deque<Traveller> stranded = new ArrayDeque<>(inside);
        inside.clear();
        stranded.forEach(Lane::goOn);
    }

    /** A runtime that lives and does not answer, its main thread held by something. */
    private void look() {
        Traveller oldest = inside.peek();
        if (oldest != null && channel != null && System.nanoTime() - oldest.since > TimeUnit.SECONDS.toNanos(STUCK_S)) {
            channel.close();
        }
    }
}
