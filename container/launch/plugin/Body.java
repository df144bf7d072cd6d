import io.netty.buffer.ByteBuf;
import io.netty.buffer.ByteBufAllocator;
import io.netty.buffer.CompositeByteBuf;
import io.netty.buffer.Unpooled;
import io.netty.channel.Channel;
import java.io.IOException;
import java.nio.channels.FileChannel;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * A request's body as it arrives: in memory, and from {@link Spool#LARGE_BYTES} on in a file, where one can be written.
 *
 * <p>Rule: wherever it is, it is all of it in one place.
 *
 * <p>Used on the connection's event loop; the file on the {@link Spool}'s thread, since a disk may keep whoever writes to it
 * waiting. While a part of it is on its way there, {@link #isMoving}, nothing is added.
 */
final class Body {

    private static final Logger LOGGER = LoggerFactory.getLogger(Body.class);
    private static final int MANY_PIECES = 1024;
    private static final int COPIED_BYTES = 16 * 1024; // in 1 us, as long as it takes to keep a piece by itself
    private static final int MOVED_BYTES = 256 * 1024; // at a time: each handing over wakes two threads

    private final Channel channel;
    private final ByteBufAllocator memory;
    private final Call call;
    private final Runnable whenMoved;
    private ByteBuf pieces; // null when there are none here
    private ByteBuf copies; // of small pieces, behind these; null when there are none
    private boolean mayBeInFile;
    private boolean isInFile; // what is not here
    private boolean isMoving;
    private boolean isLost;
    private boolean isReleased;
    private int nMoved;
    private FileChannel file; // of the spool's thread alone; null while there is none

    /**
     * @param whenMoved is called on the loop, when something is no longer on its way, unless the body has been released
     */
    Body(Channel channel, Call call, Runnable whenMoved) {
        this.channel = channel;
        this.memory = channel.alloc();
        this.call = call;
        this.whenMoved = whenMoved;
        mayBeInFile = call.isScoring; // anything else is MMS's own to read
    }

    boolean isMoving() {
        return isMoving;
    }

    /** What was in the file cannot be read back. */
    boolean isLost() {
        return isLost;
    }

    /** Takes the piece over. */
    void add(ByteBuf piece) {
        if (pieces == null && copies == null) {
            pieces = piece; // of most requests all there is
        } else if (piece.readableBytes() < COPIED_BYTES) {
            copy(piece);
        } else {
            gather();
            pieces = together(pieces, piece);
        }
        if (mayBeInFile && bytesOf(pieces) + bytesOf(copies) > (isInFile ? MOVED_BYTES : Spool.LARGE_BYTES)) {
            move();
        }
    }

    /** A piece holds all of what it was read into, a KiB at the least: of a caller who sends single bytes a thousand times more. */
    private void copy(ByteBuf piece) {
        try {
            if (copies == null) {
                copies = memory.directBuffer(Math.min(COPIED_BYTES, bytesOf(pieces)) + piece.readableBytes());
            }
            if (pieces != null && bytesOf(pieces) < COPIED_BYTES) { // the first one
                copies.writeBytes(pieces);
                pieces.release();
                pieces = null;
            }
            copies.writeBytes(piece);
        } finally {
            piece.release();
        }
        if (copies.readableBytes() >= COPIED_BYTES) {
            gather();
        }
    }

    /** What has been copied so far is a piece as others are. */
    private void gather() {
        if (copies != null) {
            pieces = pieces == null ? copies : together(pieces, copies);
            copies = null;
        }
    }

    private static int bytesOf(ByteBuf some) {
        return some == null ? 0 : some.readableBytes();
    }

    /** Nothing more is added. Whether all of it is where it stays; if not, it is on its way. */
    boolean settle() {
        gather();
        if (isInFile && pieces != null && !isMoving) {
            move();
        }
        return !isMoving;
    }

    private ByteBuf together(ByteBuf first, ByteBuf next) {
        CompositeByteBuf all =
                first instanceof CompositeByteBuf
                        ? (CompositeByteBuf) first
                        : memory.compositeDirectBuffer(MANY_PIECES).addComponent(true, first);
        return all.addComponent(true, next);
    }

    private void move() {
        gather();
        ByteBuf some = pieces;
        int size = some.readableBytes();
        long number = call.numbered();
        pieces = null;
        isMoving = true;
        isInFile = true;
        Spool.execute(
                channel,
                () -> {
                    ByteBuf all = null;
                    boolean isGone = false;
                    try {
                        all = write(some, number);
                    } catch (IOException | OutOfMemoryError e) { // Netty's, of direct memory
                        LOGGER.warn("a body is lost: {}", e.toString());
                        isGone = true;
                    } finally {
                        some.release();
                    }
                    tell(size, all, isGone);
                });
    }

    private void tell(int size, ByteBuf all, boolean isGone) {
        Spool.tell(channel, () -> moved(size, all, isGone));
    }

    /** Null once it is in the file; where that takes no more, all there has ever been, and there is no file any more. */
    private ByteBuf write(ByteBuf some, long number) throws IOException {
        try {
            if (file == null) {
                file = Spool.newBody(number);
            }
            Spool.lookForRoom(some.readableBytes());
            while (some.isReadable()) {
                some.readBytes(file, some.readableBytes());
            }
            return null;
        } catch (IOException e) { // the disk is full or read-only, or the directory is gone: MMS's way does without
            if (file == null) {
                return some.retain();
            }
            ByteBuf all = takeBack(number);
            return together(all, some.retain());
        }
    }

    private ByteBuf takeBack(long number) throws IOException {
        ByteBuf all = Unpooled.EMPTY_BUFFER;
        try {
            int written = (int) file.position();
            all = memory.directBuffer(written);
            while (all.readableBytes() < written) {
                if (all.writeBytes(file, all.readableBytes(), written - all.readableBytes()) < 0) {
                    throw new IOException("the file of a body is shorter than what was written to it");
                }
            }
            return all;
        } catch (Throwable t) {
            all.release();
            throw t;
        } finally {
            removeFile(number);
        }
    }

    private void moved(int size, ByteBuf all, boolean isGone) {
        isMoving = false;
        if (isReleased) {
            if (all != null) {
                all.release();
            }
            return;
        }
        nMoved += size;
        if (all != null) {
            mayBeInFile = false;
            isInFile = false;
            pieces = all;
        }
        isLost = isGone;
        whenMoved.run();
    }

    /** The whole of it for MMS, which releases it; of one in a file nothing, and the file is told of in the request's head. */
    ByteBuf whole() {
        if (isInFile) {
            call.goesWithFile(nMoved);
            Spool.execute(channel, this::closeFile);
        }
        ByteBuf whole = pieces == null ? Unpooled.EMPTY_BUFFER : pieces;
        pieces = null;
        return whole;
    }

    /** Leave nothing of it; what the runtime has taken is the runtime's. */
    void release() {
        isReleased = true;
        gather();
        if (pieces != null) {
            pieces.release();
            pieces = null;
        }
        if (isInFile) {
            isInFile = false;
            long number = call.number;
            Spool.execute(channel, () -> removeFile(number));
        }
    }

    private void removeFile(long number) {
        closeFile();
        Spool.removeBody(number);
    }

    private void closeFile() {
        if (file == null) {
            return;
        }
        try {
            file.close();
        } catch (IOException e) { // all of it has been written, or it is dropped
            return;
        } finally {
            file = null;
        }
    }
}
