import java.io.IOException;
import java.io.OutputStream;
import java.net.HttpURLConnection;
import java.net.Proxy;
import java.net.URI;
import java.nio.charset.StandardCharsets;

/** The runtime's gates, asked directly. See container/worker/gates.py. */
final class Gate {

    record Reason(String type, String text) {}

    private static final Reason UNKNOWN = new Reason("InternalServerException", "Failed to start workers");
    private static final int PATIENCE_MS = 5000;

    private final String url = "http://127.0.0.1:" + System.getProperty("mme.gate") + "/";

    /** Why the last load on a port was refused, as far as the runtime knows. */
    Reason whyRefused(int port) {
        try {
            HttpURLConnection connection = (HttpURLConnection) URI.create(url).toURL().openConnection(Proxy.NO_PROXY);
            connection.setConnectTimeout(PATIENCE_MS);
            connection.setReadTimeout(PATIENCE_MS);
            connection.setDoOutput(true);
            try (OutputStream out = connection.getOutputStream()) {
                out.write(("Door|" + port + "|why").getBytes(StandardCharsets.UTF_8));
            }
            String answer = new String(connection.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
            int end = answer.indexOf('\n');
            return end < 0 ? UNKNOWN : new Reason(answer.substring(0, end), answer.substring(end + 1));
        } catch (IOException e) { // the runtime has died of it, perhaps
            return UNKNOWN;
        }
    }
}
