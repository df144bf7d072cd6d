import io.netty.buffer.ByteBuf;

/**
 * How a chunked body is put together, as RFC 9112, 7.1 has it and no looser: hexadecimal digits alone say how long a chunk is,
 * lines end with a carriage return and a line feed, and behind a chunk there is nothing but that. Netty takes more than that, and
 * a proxy that does not may hold another part of the body for the next request.
 *
 * <p>Rule: a byte is looked at before Netty reads it, once; of a chunk itself none is.
 */
final class Chunks {

    private enum Part {
        SIZE, // or its first digit
        EXTENSION, // behind a semicolon
        SIZE_END,
        DATA,
        DATA_RETURN,
        DATA_END,
        TRAILER, // a line, or the empty one that ends it all
        TRAILER_END,
        OVER
    }

    private static final String WORDS =
            "the body's chunks cannot be read: a size is digits, and it and each chunk end with a carriage return and a line feed";
    private static final int MAX_DIGITS = 7; // 256 MiB, which no body may have

    private Part part = Part.SIZE;
    private int nDigits;
    private long left; // of this chunk's bytes, or how long it says so far that it is
    private int lineBytes; // of a trailer
    private int looked; // bytes at the front that have been looked at

    /** What is wrong with what has come, in words for whoever sent it; null while nothing is. */
    String look(ByteBuf in) {
        int end = in.writerIndex();
        int at = in.readerIndex() + looked;
        while (at < end && part != Part.OVER) {
            if (part == Part.DATA) {
                int here = (int) Math.min(left, end - at);
                at += here;
                left -= here;
                part = left == 0 ? Part.DATA_RETURN : Part.DATA;
            } else if (!take(in.getByte(at++))) {
                return WORDS;
            }
        }
        looked = at - in.readerIndex();
        return null;
    }

    /** Netty has read so many bytes. */
    void taken(int nBytes) {
        looked = Math.max(0, looked - nBytes);
    }

    private boolean take(byte value) {
        switch (part) {
            case SIZE:
                return takeOfSize(value);
            case EXTENSION:
                part = value == '\r' ? Part.SIZE_END : Part.EXTENSION;
                // A quoted one may hold what looks like a line's end to one reader and not to another.
                return value == '\r' || value != '"' && isText(value);
            case SIZE_END:
                part = left > 0 ? Part.DATA : Part.TRAILER;
                nDigits = 0;
                return value == '\n';
            case DATA_RETURN:
                part = Part.DATA_END;
                return value == '\r';
            case DATA_END:
                part = Part.SIZE;
                return value == '\n';
            case TRAILER:
                part = value == '\r' ? Part.TRAILER_END : Part.TRAILER;
                lineBytes += value == '\r' ? 0 : 1;
                return value == '\r' || isText(value);
            default: // TRAILER_END
                part = lineBytes == 0 ? Part.OVER : Part.TRAILER;
                lineBytes = 0;
                return value == '\n';
        }
    }

    private boolean takeOfSize(byte value) {
        int digit = Character.digit(value, 16);
        if (digit >= 0 && nDigits < MAX_DIGITS) {
            left = (nDigits++ == 0 ? 0 : left * 16) + digit;
            return true;
        }
        part = value == ';' ? Part.EXTENSION : Part.SIZE_END;
        return nDigits > 0 && (value == ';' || value == '\r');
    }

    private static boolean isText(byte value) {
        return value < 0 || value >= ' ' && value != 0x7f || value == '\t';
    }
}
