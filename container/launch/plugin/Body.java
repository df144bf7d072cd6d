import io.netty.buffer.ByteBuf;
import io.netty.buffer.ByteBufAllocator;
import io.netty.buffer.CompositeByteBuf;
import io.netty.buffer.Unpooled;
import java.io.IOException;
import java.nio.channels.FileChannel;

/**
 * A request's body as it arrives: in memory, and from {@link Spool#LARGE_BYTES} on in a file, where one can be written.
 *
 * <p>Rule: wherever it is, it is all of it in one place.
 */
final class Body {

    private static final int MANY_PIECES = 1024;

    private final ByteBufAllocator memory;
    private final Call call;
    private ByteBuf pieces; // null when there are none here
    private FileChannel file; // null while it is in memory
    private long nInFile;
    private boolean mayBeInFile;

    Body(ByteBufAllocator memory, Call call) {
        this.memory = memory;
        this.call = call;
        mayBeInFile = call.isScoring; // anything else is MMS's own to read
    }

    /** Takes the piece over. Raises IOException where what was in the file is lost. */
    void add(ByteBuf piece) throws IOException {
        pieces = pieces == null ? piece : together(piece);
        if (file == null && mayBeInFile && pieces.readableBytes() > Spool.LARGE_BYTES) {
            begin();
        }
        if (file != null) {
            move();
        }
    }

    private ByteBuf together(ByteBuf piece) {
        CompositeByteBuf all =
                pieces instanceof CompositeByteBuf
                        ? (CompositeByteBuf) pieces
                        : memory.compositeDirectBuffer(MANY_PIECES).addComponent(true, pieces);
        return all.addComponent(true, piece);
    }

    private void begin() {
        try {
            file = Spool.newBody(call.numbered());
        } catch (IOException e) { // the disk is full or read-only, or the directory is gone: MMS's way does without
            mayBeInFile = false;
        }
    }

    /** Into the file, what has come; and back, all of it, where the file takes no more. */
    private void move() throws IOException {
        try {
            Spool.lookForRoom(pieces.readableBytes());
            while (pieces.isReadable()) {
                nInFile += pieces.readBytes(file, pieces.readableBytes());
            }
            pieces.release();
            pieces = null;
        } catch (IOException e) {
            mayBeInFile = false;
            takeBack();
        }
    }

    private void takeBack() throws IOException {
        ByteBuf all = memory.directBuffer((int) nInFile);
        try {
            while (all.readableBytes() < nInFile) {
                if (all.writeBytes(file, all.readableBytes(), (int) nInFile - all.readableBytes()) < 0) {
                    throw new IOException("the file of a body is shorter than what was written to it");
                }
            }
        } catch (IOException e) {
            all.release();
            throw e;
        }
        removeFile();
        ByteBuf rest = pieces;
        pieces = all;
        pieces = together(rest);
    }

    /** The whole of it for MMS, which releases it; of one in a file nothing, and the file is told of in the request's head. */
    ByteBuf whole() throws IOException {
        if (file != null) {
            file.close();
            call.goesWithFile(nInFile);
        }
        ByteBuf whole = pieces == null ? Unpooled.EMPTY_BUFFER : pieces;
        pieces = null;
        return whole;
    }

    /** Leave nothing of it; what the runtime has taken is the runtime's. */
    void release() {
        if (pieces != null) {
            pieces.release();
            pieces = null;
        }
        if (file != null) {
            removeFile();
        }
    }

    private void removeFile() {
        try {
            file.close();
        } catch (IOException e) { // what it holds is dropped anyway
            mayBeInFile = false;
        }
        file = null;
        nInFile = 0;
        Spool.removeBody(call.number);
    }
}
