import io.netty.buffer.ByteBuf;
import io.netty.channel.Channel;
import io.netty.channel.ChannelHandlerContext;
import io.netty.handler.codec.http.DefaultHttpContent;
import io.netty.handler.codec.http.DefaultLastHttpContent;
import io.netty.handler.codec.http.FullHttpResponse;
import io.netty.util.concurrent.Future;
import java.io.IOException;
import java.nio.channels.FileChannel;
import java.util.function.Consumer;

/**
 * An answer's body that the runtime has left in a file, sent a piece at a time: the next is read when the caller's socket has
 * taken the one before, and the event loop has looked at its other connections, see {@link Pace}.
 *
 * <p>Used on the connection's event loop; the file on the {@link Spool}'s thread.
 */
final class LargeAnswer {

    private static final int PIECE_BYTES = 64 * 1024;

    final int nBytes;
    private final FileChannel file;
    private int left; // of the spool's thread alone

    private LargeAnswer(FileChannel file, int nBytes) {
        this.file = file;
        this.nBytes = nBytes;
        left = nBytes;
    }

    /**
     * @param said in the runtime's header
     * @param number of the call that is answered
     * @param opened is told on the event loop, and closes it
     * @param failed is told there where that call's answer is not there, or not as long as was said, or cannot be opened
     */
    static void open(
            ChannelHandlerContext ctx,
            String said,
            long number,
            Consumer<LargeAnswer> opened,
            Consumer<Throwable> failed) {
        Channel channel = ctx.channel();
        Spool.execute(
                channel,
                () -> {
                    try {
                        LargeAnswer answer = open(said, number);
                        Spool.tell(channel, () -> opened.accept(answer));
                    } catch (Throwable t) {
                        Spool.tell(channel, () -> failed.accept(t));
                    }
                });
    }

    private static LargeAnswer open(String said, long number) throws IOException {
        String[] words = said.split(" ");
        if (words.length != 2 || !words[0].equals(Long.toString(number))) {
            throw new IOException("not this call's answer: " + said);
        }
        FileChannel file = Spool.openAnswer(number);
        try {
            long size = file.size();
            if (!words[1].equals(Long.toString(size)) || size > Integer.MAX_VALUE) {
                throw new IOException("an answer of " + size + " bytes, not " + words[1]);
            }
            return new LargeAnswer(file, (int) size);
        } catch (Throwable t) {
            file.close();
            throw t;
        }
    }

    /** Put all of it into the response, for what has to be seen whole. */
    void addTo(ChannelHandlerContext ctx, FullHttpResponse response, Runnable added, Consumer<Throwable> failed) {
        Channel channel = ctx.channel();
        Spool.execute(
                channel,
                () -> {
                    try {
                        read(response.content(), nBytes);
                        Spool.tell(channel, added::run);
                    } catch (Throwable t) {
                        Spool.tell(channel, () -> failed.accept(t));
                    }
                });
    }

    /** Send all of it. If it cannot be read to its end, its connection is closed: it has been told how long it is. */
    void send(ChannelHandlerContext ctx, Runnable whenSent) {
        Spool.execute(
                ctx.channel(),
                () -> {
                    if (file.isOpen()) { // else the caller has gone
                        ByteBuf piece = nextPiece(ctx);
                        boolean isLast = left == 0;
                        Spool.tell(ctx.channel(), () -> write(ctx, piece, isLast, whenSent));
                    }
                });
    }

    private ByteBuf nextPiece(ChannelHandlerContext ctx) throws IOException {
        ByteBuf piece = ctx.alloc().directBuffer(PIECE_BYTES);
        try {
            read(piece, Math.min(PIECE_BYTES, left));
            return piece;
        } catch (Throwable t) {
            piece.release();
            throw t;
        }
    }

    private void write(ChannelHandlerContext ctx, ByteBuf piece, boolean isLast, Runnable whenSent) {
        Pace.of(ctx.channel().eventLoop()).kept.moved(piece.readableBytes());
        ctx.writeAndFlush(isLast ? new DefaultLastHttpContent(piece) : new DefaultHttpContent(piece))
                .addListener(written -> goOn(ctx, written, isLast, whenSent));
    }

    private void goOn(ChannelHandlerContext ctx, Future<?> written, boolean isLast, Runnable whenSent) {
        if (!written.isSuccess()) {
            ctx.close();
        } else if (isLast) {
            whenSent.run();
        } else {
            Pace.of(ctx.channel().eventLoop()).kept.await(() -> send(ctx, whenSent));
        }
    }

    private void read(ByteBuf to, int size) throws IOException {
        for (int end = to.writerIndex() + size; to.writerIndex() < end; ) {
            if (to.writeBytes(file, Math.min(PIECE_BYTES, end - to.writerIndex())) < 0) {
                throw new IOException("an answer's file has become shorter");
            }
        }
        left -= size;
    }

    void close(Channel channel) {
        Spool.execute(channel, file::close);
    }
}
