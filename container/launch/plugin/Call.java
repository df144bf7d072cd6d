import io.netty.buffer.ByteBuf;
import io.netty.handler.codec.http.DefaultFullHttpRequest;
import io.netty.handler.codec.http.EmptyHttpHeaders;
import io.netty.handler.codec.http.FullHttpResponse;
import io.netty.handler.codec.http.HttpHeaderNames;
import io.netty.handler.codec.http.HttpHeaderValues;
import io.netty.handler.codec.http.HttpMethod;
import io.netty.handler.codec.http.HttpRequest;
import io.netty.handler.codec.http.HttpResponseStatus;
import io.netty.handler.codec.http.HttpVersion;
import io.netty.handler.codec.http.QueryStringDecoder;
import io.netty.util.AsciiString;
import java.util.Map;
import java.util.concurrent.atomic.AtomicLong;

/**
 * One request's head, read once: what of it matters here, and why it is refused if it is.
 *
 * <p>Source: RFC 9110 and RFC 9112, by their sections.
 */
final class Call {

    private static final String TARGET = "x-amzn-sagemaker-target-model";
    private static final String ATTRIBUTES = "x-amzn-sagemaker-custom-attributes";
    private static final String OURS = "x-amzn-sagemaker-";
    private static final String FOR_RUNTIME = "x-mme-"; // what headers begin with that are between us and the runtime
    private static final AsciiString NUMBER = AsciiString.cached("x-mme-call"); // as container/worker/connection.py reads it
    private static final AtomicLong NUMBERS = new AtomicLong();
    private static final String STREAM = "/invocations-response-stream";
    private static final AsciiString STREAM_ACCEPT = AsciiString.cached("x-amzn-sagemaker-accept");
    /** Whether the runtime wants to know a caller's trace, which only MMS's way carries. */
    private static final boolean HAS_TRACES = Boolean.getBoolean("mme.traces");

    private static final AsciiString TRACEPARENT = AsciiString.cached("traceparent");
    private static final String[] ASKED_WITH_GET = {"/ping", "/metrics", "/execution-parameters"};

    final HttpRequest head;
    /** By which the runtime knows it when it has gone MMS's way; 0 before that. */
    long number;

    /** How long the body is; -1 where that is not said. */
    long bodyBytes = -1;

    boolean hasBody;
    boolean isChunked;
    boolean expectsContinue;
    boolean isHead;
    boolean isStream; // InvokeEndpointWithResponseStream: the answer is to be a stream of events
    boolean isScoring;
    /** Where it goes beyond what a scoring request carries, so that only MMS can tell what to do with it. */
    boolean isPlain = true;

    CharSequence target;
    CharSequence attributes;
    CharSequence inferenceId;
    CharSequence contentType;
    CharSequence accept;
    FullHttpResponse refusal;

    private final Words words;
    private CharSequence encoding;
    private CharSequence coding;
    private CharSequence expectation;
    private boolean isTraced;
    private boolean isJoined; // the answer's kind is asked for in more than one header
    private int hosts;
    private String twice;

    Call(HttpRequest head, Words words) {
        this.head = head;
        this.words = words;
        isHead = HttpMethod.HEAD.equals(head.method());
        readHeaders();
        refusal = firstObjection();
    }

    private void readHeaders() {
        boolean hasOfRuntime = false;
        var each = head.headers().iteratorCharSequence();
        while (each.hasNext()) {
            Map.Entry<CharSequence, CharSequence> field = each.next();
            CharSequence name = field.getKey();
            CharSequence value = field.getValue();
            switch (name.length()) {
                case 4:
                    hosts += is(HttpHeaderNames.HOST, name) ? 1 : 0;
                    break;
                case 6:
                    if (is(HttpHeaderNames.ACCEPT, name)) {
                        isJoined = accept != null;
                        accept = isJoined ? accept + "," + value : value; // RFC 9110, 5.3
                    } else if (is(HttpHeaderNames.EXPECT, name)) {
                        expectation = value;
                    }
                    break;
                case 10:
                    hasOfRuntime |= beginsWith(FOR_RUNTIME, name);
                    break;
                case 11:
                    isTraced |= HAS_TRACES && is(TRACEPARENT, name);
                    break;
                case 12:
                    if (is(HttpHeaderNames.CONTENT_TYPE, name)) {
                        contentType = once(name, contentType, value);
                    }
                    break;
                case 14:
                    if (is(HttpHeaderNames.CONTENT_LENGTH, name)) {
                        bodyBytes = lengthOf(once(name, bodyBytes < 0 ? null : "", value));
                    }
                    break;
                case 16:
                    if (is(HttpHeaderNames.CONTENT_ENCODING, name)) {
                        encoding = encoding == null ? value : encoding + "," + value;
                    }
                    break;
                case 17:
                    if (is(HttpHeaderNames.TRANSFER_ENCODING, name)) {
                        coding = coding == null ? value : coding + "," + value;
                    }
                    break;
                default:
                    if (beginsWith(OURS, name)) {
                        readOurs(name, value);
                    }
            }
        }
        if (hasOfRuntime) { // a caller's own would name another's call, or a file
            head.headers().remove(NUMBER).remove(Spool.BODY);
        }
        isPlain = !isTraced;
        isChunked = coding != null;
        hasBody = isChunked || bodyBytes > 0;
    }

    private void readOurs(CharSequence name, CharSequence value) {
        if (is(TARGET, name)) {
            target = once(name, target, value);
        } else if (is(ATTRIBUTES, name)) {
            attributes = once(name, attributes, value);
        } else if (is("x-amzn-sagemaker-inference-id", name)) {
            inferenceId = once(name, inferenceId, value);
        }
    }

    /** Two of what there can be one of: the last would win silently, and which one the caller meant nobody knows. */
    private CharSequence once(CharSequence name, CharSequence before, CharSequence value) {
        if (before != null) {
            twice = name.toString();
        }
        return value;
    }

    private static boolean beginsWith(String known, CharSequence name) {
        return name.length() > known.length() && AsciiString.regionMatches(name, true, 0, known, 0, known.length());
    }

    private static boolean is(CharSequence known, CharSequence name) {
        return AsciiString.contentEqualsIgnoreCase(known, name);
    }

    private static long lengthOf(CharSequence value) {
        try {
            return Long.parseLong(value.toString().trim());
        } catch (NumberFormatException e) { // Netty has refused it already
            return 0;
        }
    }

    private FullHttpResponse firstObjection() {
        HttpVersion version = head.protocolVersion();
        if (head.decoderResult().isFailure()) {
            return malformed(head.decoderResult().cause());
        }
        if ("PRI".equals(head.method().name())) {
            return words.refusal(HttpResponseStatus.BAD_REQUEST, "this port speaks HTTP/1.1, not HTTP/2");
        }
        if (version.majorVersion() != 1) {
            return words.refusal(HttpResponseStatus.HTTP_VERSION_NOT_SUPPORTED, "this port speaks HTTP/1.1, not " + version);
        }
        boolean isOld = version.minorVersion() == 0;
        if (hosts > 1 || hosts == 0 && !isOld) { // RFC 9112, 3.2
            return words.refusal(HttpResponseStatus.BAD_REQUEST, "the request needs one Host header and has " + hosts);
        }
        if (coding != null && (isOld || !is("chunked", coding))) { // RFC 9112, 6.1
            String text = "Transfer-Encoding " + coding + " is not understood here; send chunked, or a Content-Length";
            return words.refusal(isOld ? HttpResponseStatus.BAD_REQUEST : HttpResponseStatus.NOT_IMPLEMENTED, text);
        }
        if (twice != null) {
            return words.refusal(HttpResponseStatus.BAD_REQUEST, "the request has two " + twice + " headers; send one");
        }
        if (expectation != null && !isOld) { // RFC 9110, 10.1.1: of an older version it is to be ignored
            if (!is(HttpHeaderValues.CONTINUE, expectation)) {
                String text = "Expect: " + expectation + " cannot be met; 100-continue can";
                return words.refusal(HttpResponseStatus.EXPECTATION_FAILED, text);
            }
            expectsContinue = hasBody;
        }
        return objectionToTarget();
    }

    private FullHttpResponse malformed(Throwable cause) {
        String kind = cause.getClass().getSimpleName();
        if (kind.equals("TooLongHttpLineException")) {
            return words.refusal(HttpResponseStatus.REQUEST_URI_TOO_LONG, "the request's first line is over 4096 bytes");
        }
        if (kind.equals("TooLongHttpHeaderException")) {
            return words.refusal(HttpResponseStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the headers are over 8192 bytes");
        }
        return words.refusal(
                HttpResponseStatus.BAD_REQUEST,
                cause instanceof RequestDecoder.Malformed ? cause.getMessage() : "the request is not HTTP/1.1 as we read it");
    }

    private FullHttpResponse objectionToTarget() {
        String uri = head.uri();
        if (uri.startsWith("http://") || uri.startsWith("https://")) { // RFC 9112, 3.2.2: a proxy's form has to be accepted
            int path = uri.indexOf('/', uri.indexOf("//") + 2);
            uri = path < 0 ? "/" : uri.substring(path);
            head.setUri(uri);
        }
        if (uri.equals("*") && HttpMethod.OPTIONS.equals(head.method())) {
            return allowed(words.refusal(HttpResponseStatus.OK, ""), "GET, HEAD, POST, PUT, DELETE, OPTIONS");
        }
        if (!uri.startsWith("/")) {
            return words.refusal(HttpResponseStatus.BAD_REQUEST, "the request names no path");
        }
        if (uri.indexOf('%') >= 0 || uri.indexOf('?') >= 0) {
            isPlain = false;
            try {
                QueryStringDecoder decoder = new QueryStringDecoder(uri);
                uri = decoder.path(); // as MMS will take it
                decoder.parameters();
            } catch (IllegalArgumentException e) {
                return words.refusal(HttpResponseStatus.BAD_REQUEST, "the path holds a percent sign that encodes nothing");
            }
        }
        for (String path : ASKED_WITH_GET) {
            if (uri.startsWith(path) && (uri.length() == path.length() || "?/".indexOf(uri.charAt(path.length())) >= 0)) {
                return objectionToAsking();
            }
        }
        isScoring = isScoring(uri);
        isStream = isScoring && uri.endsWith(STREAM);
        return isScoring && hasBody ? objectionToBody() : null;
    }

    private FullHttpResponse objectionToAsking() {
        if (isHead) {
            head.setMethod(HttpMethod.GET); // RFC 9110, 9.3.2: the same answer, less its body
        } else if (!HttpMethod.GET.equals(head.method())) {
            String text = head.method() + " is not for this path; GET and HEAD are";
            return allowed(words.refusal(HttpResponseStatus.METHOD_NOT_ALLOWED, text), "GET, HEAD");
        }
        return null;
    }

    private static FullHttpResponse allowed(FullHttpResponse response, String methods) {
        if (HttpResponseStatus.OK.equals(response.status())) {
            response.content().clear();
            response.headers().clear();
        }
        response.headers().set(HttpHeaderNames.ALLOW, methods);
        return response;
    }

    /** The routes on which MMS takes a body for a model: InferenceRequestHandler.java. */
    private static boolean isScoring(String uri) {
        return uri.startsWith("/invocations")
                || uri.startsWith("/predictions/")
                || uri.startsWith("/models/") && uri.indexOf('/', "/models/".length()) > 0
                || uri.endsWith("/predict");
    }

    private FullHttpResponse objectionToBody() {
        if (encoding != null && !is(HttpHeaderValues.IDENTITY, encoding)) {
            String text = "Content-Encoding " + encoding + " is not read here; send the body as it is";
            return words.unread(HttpResponseStatus.UNSUPPORTED_MEDIA_TYPE, text);
        }
        String kind = contentType == null ? "" : contentType.toString().trim().toLowerCase();
        // MMS would take these apart, a field at a time; no model of ours reads them, and two million fields fill its heap.
        if (kind.startsWith("application/x-www-form-urlencoded") || kind.startsWith("multipart/form-data")) {
            String text = "a form (" + kind.split(";")[0] + ") is not read here; say what the body is, such as text/csv";
            return words.unread(HttpResponseStatus.UNSUPPORTED_MEDIA_TYPE, text);
        }
        return null;
    }

    /** The request with its body, as MMS takes it. */
    DefaultFullHttpRequest whole(ByteBuf body) {
        if (isStream && head.headers().contains(STREAM_ACCEPT)) {
            accept = head.headers().get(STREAM_ACCEPT);
            isJoined = true;
        }
        if (isJoined) {
            head.headers().set(HttpHeaderNames.ACCEPT, accept);
        }
        return new Whole(this, body);
    }

    /** Numbered, so that the runtime can be told if its caller goes, and which of the files are this call's. */
    void goesToMms() {
        if (isScoring) {
            numbered();
        }
    }

    long numbered() {
        if (number == 0) {
            number = NUMBERS.incrementAndGet();
            head.headers().set(NUMBER, Long.toString(number));
        }
        return number;
    }

    /** All of its body is in its file, and it is for MMS to bring, that is with an empty one. */
    void goesWithFile(long nBytes) {
        head.headers().set(Spool.BODY, Long.toString(nBytes));
        isPlain = false;
    }

    /** A request on its way through the handlers behind {@link Connection}. */
    static final class Whole extends DefaultFullHttpRequest {
        final Call call;

        private Whole(Call call, ByteBuf body) {
            super(
                    call.head.protocolVersion(),
                    call.head.method(),
                    call.head.uri(),
                    body,
                    call.head.headers(),
                    EmptyHttpHeaders.INSTANCE);
            this.call = call;
        }
    }
}
