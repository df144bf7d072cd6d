import java.io.BufferedReader;
import java.io.IOException;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.Channels;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;

/** The supervisor, asked to bind a worker's socket or to let go of it. See container/launch/binder.py. */
final class Binder {

    private final SocketChannel channel;
    private final BufferedReader replies;

    /** Connects at once: the supervisor listens before it starts us. */
    Binder() {
        try {
            channel = SocketChannel.open(UnixDomainSocketAddress.of(Path.of(System.getProperty("mme.binder"))));
            replies = new BufferedReader(Channels.newReader(channel, StandardCharsets.US_ASCII));
        } catch (IOException e) {
            throw new IllegalStateException("the supervisor does not listen", e);
        }
    }

    /** When this returns, a worker of MMS's can connect to the port's socket. */
    synchronized void bind(int port) throws IOException {
        say("bind " + port);
        String reply = replies.readLine();
        if (!("bound " + port).equals(reply)) {
            throw new IOException("the supervisor cannot bind a socket for port " + port + ": " + reply);
        }
    }

    synchronized void release(int port) throws IOException {
        say("release " + port);
    }

    private void say(String line) throws IOException {
        ByteBuffer bytes = ByteBuffer.wrap((line + "\n").getBytes(StandardCharsets.US_ASCII));
        while (bytes.hasRemaining()) {
            channel.write(bytes);
        }
    }
}
