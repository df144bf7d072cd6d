import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.HttpURLConnection;
import java.net.Proxy;
import java.net.URI;
import java.nio.charset.StandardCharsets;

/** The runtime, asked through its gates. See container/worker/hosted/gates.py. */
final class Gate {

    record Reason(String type, String text) {}

    private static final int CONNECT_MS = 5_000;
    private static final int PATIENCE_MS = 310_000; // a little more than the runtime waits for memory in use

    private final String url = "http://127.0.0.1:" + System.getProperty("mme.gate") + "/";

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
        try {
            HttpURLConnection connection = (HttpURLConnection) URI.create(url).toURL().openConnection(Proxy.NO_PROXY);
            connection.setConnectTimeout(CONNECT_MS);
            connection.setReadTimeout(PATIENCE_MS);
            connection.setRequestProperty("Connection", "close"); // a kept one would keep a thread of the runtime's, too
            connection.setDoOutput(true);
            try (OutputStream out = connection.getOutputStream()) {
                out.write(("Door|" + port + "|" + what).getBytes(StandardCharsets.UTF_8));
            }
            try (InputStream in = connection.getInputStream()) {
                return new String(in.readAllBytes(), StandardCharsets.UTF_8);
            }
        } catch (IOException e) {
            return "";
        }
    }
}
