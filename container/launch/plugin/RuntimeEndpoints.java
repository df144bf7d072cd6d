import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import software.amazon.ai.mms.servingsdk.Context;
import software.amazon.ai.mms.servingsdk.ModelServerEndpoint;
import software.amazon.ai.mms.servingsdk.annotations.Endpoint;
import software.amazon.ai.mms.servingsdk.annotations.helpers.EndpointTypes;
import software.amazon.ai.mms.servingsdk.http.Request;
import software.amazon.ai.mms.servingsdk.http.Response;

/**
 * MMS's own paths whose answers only the runtime knows: on SageMaker nothing but this port can be reached.
 *
 * <p>Each GET is passed on to the runtime's relay socket (-Dmme.relay) as HTTP/1.0, and its status, content type and body
 * come back as they are. A runtime that is away or silent is 503 within SageMaker's two seconds for a ping.
 */
public final class RuntimeEndpoints {

    private static final long PATIENCE_MS = 1500;
    private static final int MAX_ANSWER_BYTES = 16 << 20;

    private RuntimeEndpoints() {}

    @Endpoint(urlPattern = "ping", endpointType = EndpointTypes.INFERENCE, description = "whether requests can be answered")
    public static final class Ping extends Relay {
        public Ping() {
            super("/ping");
        }
    }

    @Endpoint(urlPattern = "metrics", endpointType = EndpointTypes.INFERENCE, description = "Prometheus text")
    public static final class Metrics extends Relay {
        public Metrics() {
            super("/metrics");
        }
    }

    @Endpoint(
            urlPattern = "execution-parameters",
            endpointType = EndpointTypes.INFERENCE,
            description = "what batch transform may send")
    public static final class ExecutionParameters extends Relay {
        public ExecutionParameters() {
            super("/execution-parameters");
        }
    }

    abstract static class Relay extends ModelServerEndpoint {

        private final byte[] request;

        Relay(String path) {
            request = ("GET " + path + " HTTP/1.0\r\n\r\n").getBytes(StandardCharsets.US_ASCII);
        }

        @Override
        public void doGet(Request req, Response rsp, Context ctx) throws IOException {
            byte[] answer;
            try {
                answer = ask();
            } catch (IOException e) {
                rsp.setStatus(503);
                rsp.setContentType("application/json");
                String text = "{\"status\":\"Unhealthy\",\"reasons\":[\"the runtime does not answer; it is being started again\"]}";
                rsp.getOutputStream().write(text.getBytes(StandardCharsets.UTF_8));
                return;
            }
            String text = new String(answer, StandardCharsets.ISO_8859_1);
            int end = text.indexOf("\r\n\r\n");
            if (end < 0) {
                throw new IOException("the runtime's answer has no end of headers");
            }
            String[] lines = text.substring(0, end).split("\r\n");
            rsp.setStatus(Integer.parseInt(lines[0].split(" ")[1]));
            for (String line : lines) {
                if (line.regionMatches(true, 0, "content-type:", 0, 13)) {
                    rsp.setContentType(line.substring(13).trim());
                }
            }
            rsp.getOutputStream().write(answer, end + 4, answer.length - end - 4);
        }

        private byte[] ask() throws IOException {
            long deadline = System.nanoTime() + PATIENCE_MS * 1_000_000;
            var address = UnixDomainSocketAddress.of(Path.of(System.getProperty("mme.relay")));
            try (SocketChannel channel = SocketChannel.open(address);
                    Selector selector = Selector.open()) {
                channel.write(ByteBuffer.wrap(request));
                channel.configureBlocking(false);
                channel.register(selector, SelectionKey.OP_READ);
                var answer = new ByteArrayOutputStream();
                ByteBuffer buffer = ByteBuffer.allocate(64 * 1024);
                while (true) {
                    long left = (deadline - System.nanoTime()) / 1_000_000;
                    if (left <= 0 || answer.size() > MAX_ANSWER_BYTES) {
                        throw new IOException("no answer in time");
                    }
                    selector.select(left);
                    selector.selectedKeys().clear();
                    int got = channel.read(buffer.clear());
                    if (got < 0) {
                        return answer.toByteArray();
                    }
                    answer.write(buffer.array(), 0, got);
                }
            }
        }
    }
}
