import java.io.File;

/** What MMS is told of a model that is one file: an empty directory. The runtime asks for the url and opens the file itself,
 * with limits and where it can do no harm. See container/worker/hosted/bundles.py. */
final class Archives {

    static final File DIRECTORY = new File(System.getProperty("java.io.tmpdir"), "models/archive");

    static {
        DIRECTORY.mkdirs();
    }

    private Archives() {}
}
