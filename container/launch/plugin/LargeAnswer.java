import io.netty.buffer.ByteBuf;
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
 * taken the one before, and the event loop has looked at its other connections.
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
     * @param failed is told there where that call's answer is not there, or not as long as was said
     */
    static void open(
            ChannelHandlerContext ctx,
            String said,
            long number,
            Consumer<LargeAnswer> opened,
            Consumer<IOException> failed) {
        Spool.execute(
                () -> {
                    try {
                        LargeAnswer answer = open(said, number);
                        ctx.executor().execute(() -> opened.accept(answer));
                    } catch (IOException e) {
                        ctx.executor().execute(() -> failed.accept(e));
                    }
                });
    }

    private static LargeAnswer open(String said, long number) throws IOException {
        String[] words = said.split(" ");
        if (words.length != 2 || !words[0].equals(Long.toString(number))) {
            throw new IOException("not this call's answer: " + said);
        }
        FileChannel file = Spool.openAnswer(number);
        if (!words[1].equals(Long.toString(file.size())) || file.size() > Integer.MAX_VALUE) {
            file.close();
            throw new IOException("an answer of " + file.size() + " bytes, not " + words[1]);
        }
        return new LargeAnswer(file, (int) file.size());
    }

    /** Put all of it into the response, for what has to be seen whole. */
    void addTo(ChannelHandlerContext ctx, FullHttpResponse response, Runnable added, Consumer<IOException> failed) {
        Spool.execute(
                () -> {
                    try {
                        read(response.content(), nBytes);
                        ctx.executor().execute(added);
                    } catch (IOException e) {
                        ctx.executor().execute(() -> failed.accept(e));
                    }
                });
    }

    /** Send all of it. If it cannot be read to its end, its connection is closed: it has been told how long it is. */
    void send(ChannelHandlerContext ctx, Runnable whenSent) {
        Spool.execute(
                () -> {
                    try {
                        ByteBuf piece = nextPiece(ctx);
                        boolean isLast = left == 0;
                        ctx.executor().execute(() -> write(ctx, piece, isLast, whenSent));
                    } catch (IOException | OutOfMemoryError e) { // or closed, since the caller has gone
                        ctx.executor().execute(ctx::close);
                    }
                });
    }

    private ByteBuf nextPiece(ChannelHandlerContext ctx) throws IOException {
        ByteBuf piece = ctx.alloc().directBuffer(PIECE_BYTES);
        try {
            read(piece, Math.min(PIECE_BYTES, left));
            return piece;
        } catch (IOException e) {
            piece.release();
            throw e;
        }
    }

    private void write(ChannelHandlerContext ctx, ByteBuf piece, boolean isLast, Runnable whenSent) {
        ctx.writeAndFlush(isLast ? new DefaultLastHttpContent(piece) : new DefaultHttpContent(piece))
                .addListener(written -> goOn(ctx, written, isLast, whenSent));
    }

    private void goOn(ChannelHandlerContext ctx, Future<?> written, boolean isLast, Runnable whenSent) {
        if (!written.isSuccess()) {
            ctx.close();
        } else if (isLast) {
            whenSent.run();
        } else {
            send(ctx, whenSent);
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

    void close() {
        Spool.execute(
                () -> {
                    try {
                        file.close();
                    } catch (IOException e) { // it was only read
                        left = 0;
                    }
                });
    }
}
