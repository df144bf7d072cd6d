import io.netty.buffer.ByteBuf;
import io.netty.buffer.PooledByteBufAllocator;
import io.netty.buffer.Unpooled;
import io.netty.buffer.UnpooledByteBufAllocator;
import io.netty.buffer.UnpooledDirectByteBuf;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInboundHandlerAdapter;
import io.netty.channel.ChannelOutboundHandlerAdapter;
import io.netty.channel.ChannelPromise;
import io.netty.channel.embedded.EmbeddedChannel;
import io.netty.handler.codec.http.DefaultFullHttpRequest;
import io.netty.handler.codec.http.DefaultFullHttpResponse;
import io.netty.handler.codec.http.DefaultHttpContent;
import io.netty.handler.codec.http.DefaultHttpRequest;
import io.netty.handler.codec.http.FullHttpResponse;
import io.netty.handler.codec.http.HttpHeaderNames;
import io.netty.handler.codec.http.HttpMethod;
import io.netty.handler.codec.http.HttpObject;
import io.netty.handler.codec.http.HttpResponseStatus;
import io.netty.handler.codec.http.HttpVersion;
import io.netty.handler.codec.http.LastHttpContent;
import io.netty.util.CharsetUtil;
import io.netty.util.ReferenceCountUtil;
import java.io.IOException;
import java.nio.channels.GatheringByteChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Supplier;

/** Of a connection, what takes a minute or is a fault of ours: played with its clock in hand. One scene by its name. */
public final class Scenes {

    private static final int LARGE = 1 << 20;
    private static final Path SPOOL = Path.of(System.getProperty("mme.spool"));

    private final Connection.Limits limits = new Connection.Limits(LARGE, LARGE, 1000, Words.of(true));
    private final Deque<Call.Whole> asked = new ArrayDeque<>();
    private final EmbeddedChannel channel = new EmbeddedChannel();
    private ChannelHandlerContext inner;
    private int nReads;
    private boolean isDeaf;

    private Scenes() {
        Connection connection = new Connection(limits, new RequestDecoder());
        channel.freezeTime();
        channel.pipeline()
                .addLast(
                        new ChannelOutboundHandlerAdapter() {
                            @Override
                            public void read(ChannelHandlerContext ctx) throws Exception {
                                nReads++;
                                super.read(ctx);
                            }

                            @Override
                            public void write(ChannelHandlerContext ctx, Object message, ChannelPromise promise)
                                    throws Exception {
                                if (isDeaf) { // the caller's socket takes nothing
                                    ReferenceCountUtil.release(message);
                                } else {
                                    super.write(ctx, message, promise);
                                }
                            }
                        })
                .addLast(connection.encoder(), connection)
                .addLast(
                        new ChannelInboundHandlerAdapter() {
                            @Override
                            public void handlerAdded(ChannelHandlerContext ctx) {
                                inner = ctx;
                            }

                            @Override
                            public void channelRead(ChannelHandlerContext ctx, Object message) {
                                Call.Whole request = (Call.Whole) message;
                                request.call.goesToMms();
                                asked.add(request);
                            }
                        });
    }

    public static void main(String[] names) throws Exception {
        Scenes scene = new Scenes();
        switch (names[0]) {
            case "slow-answer":
                scene.aLargeBodyIsAnsweredAfterTwoMinutes();
                break;
            case "half-behind":
                scene.halfARequestBehindAnotherIsGivenUp();
                break;
            case "single-bytes":
                scene.singleBytesHoldNoMoreThanThemselves();
                break;
            case "dropped":
                scene.whatIsDroppedHasALineOfItsOwn();
                break;
            case "deaf":
                scene.whoCannotBeToldThatItIsTooLateIsClosed();
                break;
            case "pace":
                scene.largeBodiesTakeTurnsBesideSmallRequests();
                break;
            case "no-memory-for-a-body":
                scene.aBodyMeets(() -> new OutOfMemoryError("of a test"));
                check(scene.sent().startsWith("HTTP/1.1 503"), "said");
                check(scene.channel.isOpen(), "kept");
                break;
            case "fault-in-a-body":
                scene.aBodyMeets(() -> new IllegalStateException("of a test"));
                check(!scene.channel.isOpen(), "closed");
                break;
            case "no-memory-for-an-answer":
                scene.anAnswerMeets(() -> new OutOfMemoryError("of a test"));
                break;
            case "fault-in-an-answer":
                scene.anAnswerMeets(() -> new IllegalStateException("of a test"));
                break;
            default:
                throw new IllegalArgumentException(names[0]);
        }
        scene.nothingIsLeft();
        System.out.println("played " + names[0]);
        System.exit(0);
    }

    private void aLargeBodyIsAnsweredAfterTwoMinutes() throws Exception {
        receive(head(LARGE));
        for (int left = LARGE; left > 0; left -= 1 << 16) {
            receive(new DefaultHttpContent(Unpooled.directBuffer().writeZero(1 << 16)));
        }
        receive(LastHttpContent.EMPTY_LAST_CONTENT);
        check(asked.size() == 1, "asked");
        check(Files.size(SPOOL.resolve(asked.peek().call.number + ".body")) == LARGE, "in its file");
        pass(120);
        check(sent().isEmpty(), "nothing is said meanwhile");
        answer("done");
        check(sent().startsWith("HTTP/1.1 200"), "answered");
    }

    private void halfARequestBehindAnotherIsGivenUp() throws Exception {
        DefaultFullHttpRequest first = new DefaultFullHttpRequest(HttpVersion.HTTP_1_1, HttpMethod.POST, "/invocations");
        first.headers().set(HttpHeaderNames.HOST, "x").set(HttpHeaderNames.CONTENT_LENGTH, 0);
        receive(first);
        receive(head(100));
        pass(120);
        check(sent().isEmpty(), "the first one is worked on");
        answer("done");
        check(sent().startsWith("HTTP/1.1 200"), "answered");
        pass(59);
        check(sent().isEmpty(), "the second one may still come");
        pass(2);
        check(sent().startsWith("HTTP/1.1 408"), "given up");
    }

    private void singleBytesHoldNoMoreThanThemselves() throws Exception {
        ByteBuf[] reads = new ByteBuf[20_000];
        channel.writeInbound(head(reads.length));
        for (int i = 0; i < reads.length; i++) {
            reads[i] = Unpooled.directBuffer(1024).writeByte(i);
            channel.writeInbound(new DefaultHttpContent(reads[i]));
            check(i == 0 || reads[i].refCnt() == 0, "let go of");
        }
        check(reads[0].refCnt() == 0, "the first one too");
        receive(LastHttpContent.EMPTY_LAST_CONTENT);
        ByteBuf body = asked.peek().content();
        check(body.readableBytes() == reads.length, "whole");
        for (int i = 0; i < reads.length; i++) {
            check(body.getByte(i) == (byte) i, "as it was sent");
        }
        answer("done");
    }

    private void largeBodiesTakeTurnsBesideSmallRequests() throws Exception {
        AtomicLong now = new AtomicLong();
        Pace pace = new Pace(channel.eventLoop(), now::get);
        Pace.OF_LOOP.set(pace);
        receive(head(LARGE / 2));
        check(readsFor(now, piece(1), 0) == 1, "read on at once where nobody else is");
        pace.small();
        check(readsFor(now, piece(1 << 16), Pace.PAUSE_NS - 1) == 0, "a pause for 64 KiB");
        check(!channel.config().isAutoRead(), "nothing else is read meanwhile");
        for (int i = 0; i < 50; i++) {
            check(readsFor(now, piece(1), 0) == 0, "whatever comes");
        }
        check(readsFor(now, piece(0), 1 + 50 * Pace.PAUSE_NS / (1 << 16)) == 1, "one turn, paid for by what has come");
        check(readsFor(now, piece(1), Pace.PAUSE_NS) == 1, "and the next");
        pace.kept.moved(LARGE);
        check(readsFor(now, piece(1), Pace.PAUSE_NS) == 0, "others' bytes are paid for too");
        pace.small();
        now.addAndGet(Pace.WATCHED_NS);
        check(readsFor(now, piece(0), Pace.WATCHED_NS) == 1, "no longer than small requests come");
    }

    private void whatIsDroppedHasALineOfItsOwn() throws Exception {
        AtomicLong now = new AtomicLong();
        Pace pace = new Pace(channel.eventLoop(), now::get);
        Pace.OF_LOOP.set(pace);
        pace.small();
        pace.kept.moved(LARGE);
        DefaultHttpRequest head = head(LARGE);
        head.headers().set(HttpHeaderNames.CONTENT_ENCODING, "gzip");
        receive(head);
        check(sent().startsWith("HTTP/1.1 415"), "refused before its body is here");
        for (int left = LARGE; left > 0; left -= 1 << 16) {
            check(readsFor(now, piece(1 << 16), Pace.PAUSE_NS - 1) == 0, "a pause");
            check(readsFor(now, piece(0), 1) == 1, "and the next piece");
        }
    }

    private static HttpObject piece(int nBytes) {
        return new DefaultHttpContent(Unpooled.directBuffer().writeZero(nBytes));
    }

    /** How often more is read when this has come and so much time has gone by. */
    private int readsFor(AtomicLong now, HttpObject piece, long ns) {
        int before = nReads;
        channel.writeInbound(piece);
        now.addAndGet(ns);
        channel.advanceTimeBy(ns, TimeUnit.NANOSECONDS);
        channel.runPendingTasks();
        return nReads - before;
    }

    private void whoCannotBeToldThatItIsTooLateIsClosed() throws Exception {
        isDeaf = true;
        receive(head(100));
        pass(61);
        check(channel.isOpen(), "it has time to close the connection itself");
        pass(11);
        check(!channel.isOpen(), "closed");
    }

    private void aBodyMeets(Supplier<Throwable> trouble) throws Exception {
        ByteBuf piece =
                new UnpooledDirectByteBuf(UnpooledByteBufAllocator.DEFAULT, LARGE / 2, LARGE / 2) {
                    @Override
                    public int readBytes(GatheringByteChannel out, int length) {
                        throw Scenes.<RuntimeException>unchecked(trouble.get());
                    }
                };
        receive(head(LARGE));
        receive(new DefaultHttpContent(piece.writeZero(LARGE / 2)));
        check(piece.refCnt() == 0, "released");
    }

    private void anAnswerMeets(Supplier<Throwable> trouble) throws Exception {
        receive(head(1));
        receive(new DefaultHttpContent(Unpooled.directBuffer().writeZero(1)));
        receive(LastHttpContent.EMPTY_LAST_CONTENT);
        long number = asked.peek().call.number;
        Files.write(SPOOL.resolve(number + ".answer"), new byte[LARGE]);
        channel.config()
                .setAllocator(
                        new PooledByteBufAllocator(true) {
                            @Override
                            protected ByteBuf newDirectBuffer(int initialCapacity, int maxCapacity) {
                                if (Thread.currentThread().getName().equals("spool")) {
                                    throw Scenes.<RuntimeException>unchecked(trouble.get());
                                }
                                return super.newDirectBuffer(initialCapacity, maxCapacity);
                            }
                        });
        answer("", Spool.ANSWER, number + " " + LARGE);
        check(!channel.isOpen(), "closed");
    }

    private void nothingIsLeft() throws Exception {
        channel.close();
        settle();
        asked.forEach(ReferenceCountUtil::release);
        check(limits.allBytes().get() == 0 && limits.answersInFiles().get() == 0, "given back");
        try (var left = Files.list(SPOOL)) {
            check(left.count() == 0, "no file");
        }
        try (var open = Files.list(Path.of("/proc/self/fd"))) {
            check(open.noneMatch(Scenes::isOfSpool), "none open");
        }
    }

    private static boolean isOfSpool(Path link) {
        try {
            return Files.readSymbolicLink(link).startsWith(SPOOL);
        } catch (IOException e) { // closed meanwhile
            return false;
        }
    }

    private static DefaultHttpRequest head(int nBytes) {
        DefaultHttpRequest head = new DefaultHttpRequest(HttpVersion.HTTP_1_1, HttpMethod.POST, "/invocations");
        head.headers().set(HttpHeaderNames.HOST, "x").set(HttpHeaderNames.CONTENT_LENGTH, nBytes);
        return head;
    }

    private void receive(HttpObject message) throws Exception {
        channel.writeInbound(message);
        settle();
    }

    private void answer(String text, Object... header) throws Exception {
        Call.Whole request = asked.remove();
        FullHttpResponse response =
                new DefaultFullHttpResponse(
                        HttpVersion.HTTP_1_1, HttpResponseStatus.OK, Unpooled.copiedBuffer(text, CharsetUtil.UTF_8));
        if (header.length > 0) {
            response.headers().set((CharSequence) header[0], header[1]);
        }
        request.release();
        inner.writeAndFlush(response);
        settle();
    }

    /** What is on its way through the files has come back. */
    private void settle() throws Exception {
        for (int i = 0; i < 10; i++) {
            CountDownLatch done = new CountDownLatch(1);
            Spool.execute(new EmbeddedChannel(), done::countDown);
            check(done.await(10, TimeUnit.SECONDS), "the thread of the files is there");
            channel.runPendingTasks();
        }
    }

    private void pass(int seconds) {
        channel.advanceTimeBy(seconds, TimeUnit.SECONDS);
        channel.runPendingTasks();
    }

    private String sent() {
        StringBuilder all = new StringBuilder();
        for (ByteBuf part = channel.readOutbound(); part != null; part = channel.readOutbound()) {
            all.append(part.toString(CharsetUtil.UTF_8));
            part.release();
        }
        return all.toString();
    }

    @SuppressWarnings("unchecked")
    private static <T extends Throwable> T unchecked(Throwable trouble) throws T {
        throw (T) trouble;
    }

    private static void check(boolean isSo, String what) {
        if (!isSo) {
            throw new AssertionError("not so: " + what);
        }
    }
}
