import io.netty.buffer.ByteBuf;
import io.netty.buffer.Unpooled;
import io.netty.handler.codec.http.DefaultFullHttpResponse;
import io.netty.handler.codec.http.FullHttpResponse;
import io.netty.handler.codec.http.HttpHeaderNames;
import io.netty.handler.codec.http.HttpResponseStatus;
import java.nio.charset.StandardCharsets;
import java.util.zip.CRC32;

/**
 * An answer as InvokeEndpointWithResponseStream gives it: its body in PayloadPart events. Errors are answered as ever.
 *
 * <pre>
 *   event   u32 length, u32 length of headers, u32 CRC-32 of these, headers, a part of the body, u32 CRC-32 of all before
 *   header  u8 length and name, u8 7 (text), u16 length and value
 * </pre>
 *
 * <p>Source: botocore's eventstream.py and its model of sagemaker-runtime.
 */
final class EventStream {

    private static final int PART_BYTES = 64 * 1024;
    private static final int FIXED_BYTES = 16;
    private static final byte[] HEADERS =
            headers(":message-type", "event", ":event-type", "PayloadPart", ":content-type", "application/octet-stream");

    private EventStream() {}

    static FullHttpResponse of(FullHttpResponse response) {
        if (!HttpResponseStatus.OK.equals(response.status())) {
            return response;
        }
        ByteBuf body = response.content();
        ByteBuf events = Unpooled.buffer(body.readableBytes() + FIXED_BYTES + HEADERS.length);
        do {
            writeEvent(events, body.readSlice(Math.min(PART_BYTES, body.readableBytes())));
        } while (body.isReadable());
        response.release();
        FullHttpResponse stream =
                new DefaultFullHttpResponse(
                        response.protocolVersion(), response.status(), events, response.headers(), response.trailingHeaders());
        String kind = response.headers().get(HttpHeaderNames.CONTENT_TYPE);
        if (kind != null) {
            stream.headers().set("X-Amzn-SageMaker-Content-Type", kind);
        }
        stream.headers().set(HttpHeaderNames.CONTENT_TYPE, "application/vnd.amazon.eventstream");
        return stream;
    }

    private static void writeEvent(ByteBuf to, ByteBuf part) {
        int start = to.writerIndex();
        to.writeInt(FIXED_BYTES + HEADERS.length + part.readableBytes());
        to.writeInt(HEADERS.length);
        to.writeInt(crc(to, start));
        to.writeBytes(HEADERS);
        to.writeBytes(part);
        to.writeInt(crc(to, start));
    }

    private static int crc(ByteBuf of, int start) {
        CRC32 crc = new CRC32();
        crc.update(of.nioBuffer(start, of.writerIndex() - start));
        return (int) crc.getValue();
    }

    private static byte[] headers(String... namesAndValues) {
        ByteBuf to = Unpooled.buffer();
        for (int i = 0; i < namesAndValues.length; i += 2) {
            to.writeByte(namesAndValues[i].length()).writeCharSequence(namesAndValues[i], StandardCharsets.US_ASCII);
            to.writeByte(7).writeShort(namesAndValues[i + 1].length());
            to.writeCharSequence(namesAndValues[i + 1], StandardCharsets.US_ASCII);
        }
        byte[] bytes = new byte[to.readableBytes()];
        to.readBytes(bytes);
        return bytes;
    }
}
