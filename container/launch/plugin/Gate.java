import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.concurrent.TimeUnit;

/** The runtime, asked through its gates. See container/worker/hosted/gates.py. */
final class Gate {

    record Reason(String type, String text) {}

    private static final long PATIENCE_MS = 310_000; // a little more than the runtime waits for memory in use
    private static final int RECEIVE_BYTES = 4096;

    private final UnixDomainSocketAddress address = UnixDomainSocketAddress.of(Path.of(System.getProperty("mme.gate")));

    /** Why the last load on a port was refused; null when the runtime does not know of it. */
    Reason whyRefused(int port) {
        String answer = ask(port, "why");
        int end = answer.indexOf('\n');
        return end < 0 ? null : new Reason(answer.substring(0, end), answer.substring(end + 1));
    }

    /** Returns when the memory of what was loaded on the port is back. */
    void awaitUnloaded(int port) {
        ask(port, "unloaded");
    }

    /** Empty when the runtime is not there: then it holds nothing, either. */
    private String ask(int port, String what) {
        try (SocketChannel channel = SocketChannel.open(address);
                Selector selector = Selector.open()) {
            ByteBuffer question = ByteBuffer.wrap(("Door|" + port + "|" + what).getBytes(StandardCharsets.UTF_8));
            while (question.hasRemaining()) {
                channel.write(question);
            }
            channel.shutdownOutput();
            channel.configureBlocking(false);
            channel.register(selector, SelectionKey.OP_READ);
            return answerOf(channel, selector);
        } catch (IOException e) {
            return "";
        }
    }

    private static String answerOf(SocketChannel channel, Selector selector) throws IOException {
        long ends = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(PATIENCE_MS);
        ByteArrayOutputStream answer = new ByteArrayOutputStream();
        ByteBuffer here = ByteBuffer.allocate(RECEIVE_BYTES);
        while (true) {
            long leftMs = TimeUnit.NANOSECONDS.toMillis(ends - System.nanoTime());
            if (leftMs <= 0 || selector.select(leftMs) == 0) {
                return "";
            }
            selector.selectedKeys().clear();
            if (channel.read(here) < 0) {
                return answer.toString(StandardCharsets.UTF_8);
            }
            answer.write(here.array(), 0, here.position());
            here.clear();
        }
    }
}
