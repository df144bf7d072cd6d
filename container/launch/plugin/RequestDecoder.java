import io.netty.buffer.ByteBuf;
import io.netty.buffer.Unpooled;
import io.netty.channel.ChannelHandlerContext;
import io.netty.handler.codec.DecoderResult;
import io.netty.handler.codec.http.DefaultHttpRequest;
import io.netty.handler.codec.http.DefaultLastHttpContent;
import io.netty.handler.codec.http.HttpMessage;
import io.netty.handler.codec.http.HttpMethod;
import io.netty.handler.codec.http.HttpRequest;
import io.netty.handler.codec.http.HttpRequestDecoder;
import io.netty.handler.codec.http.HttpUtil;
import io.netty.handler.codec.http.HttpVersion;
import io.netty.handler.codec.http.LastHttpContent;
import io.netty.util.ByteProcessor;
import java.util.List;

/**
 * Netty's decoder, less what it takes in good faith: a line feed alone for a line's end, control characters, a length
 * beside a transfer coding, and chunks as {@link Chunks} would not have them. A proxy in front of us may read such a head in another way, and then it and we disagree about
 * where the next request begins (RFC 9112, 2.2 and 11.2).
 *
 * <p>Rule: a head's bytes are looked at before Netty reads them, once.
 */
final class RequestDecoder extends HttpRequestDecoder {

    /** What is wrong with a request, in words for whoever sent it. */
    static final class Malformed extends IllegalArgumentException {
        private static final long serialVersionUID = 1;

        Malformed(String words) {
            super(words);
        }
    }

    /** Of a body, at most: a read, so that a body of 24 MB has 400 pieces, which need not be copied together on the way. */
    static final int PIECE_BYTES = 64 * 1024;

    private static final int LINE_BYTES = 4096; // Netty's own, as README says
    private static final int HEAD_BYTES = 8192;

    private boolean isInBody;
    private boolean isBroken;
    private boolean hasBegun; // a line of this head that is not empty
    private int looked; // bytes at the front that have been looked at
    private int lineBytes; // of the line that is being looked at
    private boolean isAfterReturn;
    private boolean isWhole; // the head's end has been looked at
    private String objection;
    private Chunks chunks; // of the body that is being read; null when it is not in chunks

    RequestDecoder() {
        super(LINE_BYTES, HEAD_BYTES, PIECE_BYTES);
    }

    /** Whether a part of a head is here, and not its end. */
    boolean isInsideHead() {
        return !isInBody && !isBroken && (hasBegun || lineBytes > 0);
    }

    @Override
    protected void decode(ChannelHandlerContext ctx, ByteBuf in, List<Object> out) throws Exception {
        if (isBroken) {
            in.skipBytes(in.readableBytes());
            return;
        }
        if (chunks != null) {
            objection = chunks.look(in);
            if (objection != null) {
                isBroken = true;
                in.skipBytes(in.readableBytes());
                out.add(brokenBody(objection));
                return;
            }
        }
        if (!isInBody && !isWhole) {
            look(in);
            if (objection != null) {
                isBroken = true;
                in.skipBytes(in.readableBytes());
                out.add(broken(objection));
                return;
            }
        }
        int start = in.readerIndex();
        int before = out.size();
        super.decode(ctx, in, out);
        looked = Math.max(0, looked - (in.readerIndex() - start));
        if (chunks != null) {
            chunks.taken(in.readerIndex() - start);
        }
        for (int i = before; i < out.size(); i++) {
            if (out.get(i) instanceof HttpRequest request) {
                isInBody = true;
                isBroken = request.decoderResult().isFailure();
                chunks = HttpUtil.isTransferEncodingChunked(request) ? new Chunks() : null;
            }
            if (out.get(i) instanceof LastHttpContent) {
                isInBody = false;
                chunks = null;
                hasBegun = false;
                isWhole = false;
                looked = 0;
            }
        }
    }

    private void look(ByteBuf in) {
        int stopped = in.forEachByte(in.readerIndex() + looked, in.readableBytes() - looked, eye);
        looked = stopped < 0 ? in.readableBytes() : stopped + 1 - in.readerIndex();
    }

    private final ByteProcessor eye =
            value -> {
                if (value == '\n') {
                    if (!isAfterReturn) {
                        objection = "a line of the request's head ends without a carriage return";
                        return false;
                    }
                    boolean isEmpty = lineBytes == 1;
                    isAfterReturn = false;
                    lineBytes = 0;
                    isWhole = isEmpty && hasBegun; // empty lines in front of a request are let pass, as RFC 9112, 2.2 asks
                    hasBegun |= !isEmpty;
                    return !isWhole;
                }
                if (isAfterReturn || value >= 0 && value < ' ' && value != '\r' && value != '\t' || value == 0x7f) {
                    objection = "the request's head holds a control character";
                    return false;
                }
                isAfterReturn = value == '\r';
                lineBytes++;
                return true;
            };

    @Override
    protected void handleTransferEncodingChunkedWithContentLength(HttpMessage message) {
        throw new Malformed("the request has a Transfer-Encoding and a Content-Length");
    }

    private static HttpRequest broken(String words) {
        HttpRequest request = new DefaultHttpRequest(HttpVersion.HTTP_1_1, HttpMethod.GET, "/");
        request.setDecoderResult(DecoderResult.failure(new Malformed(words)));
        return request;
    }

    private static LastHttpContent brokenBody(String words) {
        LastHttpContent last = new DefaultLastHttpContent(Unpooled.EMPTY_BUFFER);
        last.setDecoderResult(DecoderResult.failure(new Malformed(words)));
        return last;
    }
}
