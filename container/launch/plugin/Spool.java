import io.netty.channel.Channel;
import io.netty.util.AsciiString;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.channels.FileChannel;
import java.nio.file.FileStore;
import java.nio.file.Files;
import java.nio.file.OpenOption;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Set;
import java.util.concurrent.Executor;
import java.util.concurrent.Executors;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Where large bodies and answers are between here and the runtime, each in a file of its own: container/link/spool.py tells
 * how. MMS would have each of them in arrays on the heap, and the collector would stop everybody for them.
 *
 * <p>Rule: the two headers are between us and the runtime. No caller's is passed on, and none is sent to a caller.
 *
 * <p>Rule: whatever touches a file is executed here, on one thread, in the order in which it was asked for. An event loop
 * answers everybody, and a disk may keep whoever creates, writes or removes a file waiting.
 */
final class Spool {

    static final int LARGE_BYTES = 128 * 1024; // copied in 0.05 ms, about as long as a file takes
    static final AsciiString BODY = AsciiString.cached("x-mme-body"); // of a request: the length
    static final AsciiString ANSWER = AsciiString.cached("x-mme-answer"); // of a reply: the call's number, the length

    /** What is done for a connection. */
    interface Task {
        void run() throws IOException;
    }

    private static final Logger LOGGER = LoggerFactory.getLogger(Spool.class);
    private static final Path DIRECTORY = Path.of(System.getProperty("mme.spool"));
    private static final Set<OpenOption> NEW =
            Set.of(StandardOpenOption.CREATE_NEW, StandardOpenOption.WRITE, StandardOpenOption.READ);

    private static final long KEPT_FREE_BYTES = 256 << 20; // or half of the file system, as on the other side
    private static final FileStore DISK = disk();
    private static final Executor THREAD =
            Executors.newSingleThreadExecutor(
                    task -> {
                        Thread thread = new Thread(task, "spool");
                        thread.setDaemon(true);
                        return thread;
                    });

    private Spool() {}

    /** Whoever waits for it is told by the task itself, see {@link #tell}. */
    static void execute(Channel channel, Task task) {
        THREAD.execute(() -> run(channel, task));
    }

    /** Executed on the connection's event loop. */
    static void tell(Channel channel, Task task) {
        channel.eventLoop().execute(() -> run(channel, task));
    }

    /** What goes wrong ends its connection, else the caller would wait for nothing; and this thread goes on for the others. */
    private static void run(Channel channel, Task task) {
        try {
            task.run();
        } catch (Throwable t) {
            LOGGER.error("a connection is closed after a fault of ours", t);
            channel.close();
        }
    }

    private static FileStore disk() {
        try {
            return Files.getFileStore(DIRECTORY);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    static FileChannel newBody(long number) throws IOException {
        return FileChannel.open(body(number), NEW);
    }

    /** Throws IOException where so many bytes more would take the room that others need. */
    static void lookForRoom(long nBytes) throws IOException {
        long kept = Math.min(DISK.getTotalSpace() / 2, KEPT_FREE_BYTES);
        if (DISK.getUsableSpace() - kept < nBytes) {
            throw new IOException("no room");
        }
    }

    /** Unless the runtime has taken it. */
    static void removeBody(long number) {
        remove(body(number));
    }

    /** Whose file is gone afterwards. */
    static FileChannel openAnswer(long number) throws IOException {
        Path path = answer(number);
        FileChannel file = FileChannel.open(path, StandardOpenOption.READ);
        remove(path);
        return file;
    }

    /** If there is one: nobody waits for it. */
    static void removeAnswer(long number) {
        remove(answer(number));
    }

    private static Path answer(long number) {
        return DIRECTORY.resolve(number + ".answer");
    }

    private static Path body(long number) {
        return DIRECTORY.resolve(number + ".body");
    }

    private static void remove(Path path) {
        try {
            Files.deleteIfExists(path);
        } catch (IOException e) { // it goes with the directory
            return;
        }
    }
}
