import com.amazonaws.ml.mms.ModelServer;
import com.amazonaws.ml.mms.http.ApiDescriptionRequestHandler;
import com.amazonaws.ml.mms.http.HttpRequestHandler;
import com.amazonaws.ml.mms.http.HttpRequestHandlerChain;
import com.amazonaws.ml.mms.http.InferenceRequestHandler;
import com.amazonaws.ml.mms.http.InvalidRequestHandler;
import com.amazonaws.ml.mms.servingsdk.impl.PluginsManager;
import com.amazonaws.ml.mms.util.ConfigManager;
import com.amazonaws.ml.mms.util.Connector;
import com.amazonaws.ml.mms.util.ConnectorType;
import io.netty.bootstrap.ServerBootstrap;
import io.netty.channel.AdaptiveRecvByteBufAllocator;
import io.netty.channel.Channel;
import io.netty.channel.ChannelFuture;
import io.netty.channel.ChannelInitializer;
import io.netty.channel.ChannelOption;
import io.netty.channel.ChannelPipeline;
import io.netty.channel.EventLoopGroup;
import io.netty.channel.RecvByteBufAllocator;
import io.netty.channel.epoll.EpollServerSocketChannel;
import io.netty.channel.epoll.EpollSocketChannel;
import io.netty.channel.unix.Socket;
import io.netty.util.internal.logging.InternalLoggerFactory;
import io.netty.util.internal.logging.Slf4JLoggerFactory;
import java.io.IOException;
import java.security.GeneralSecurityException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.commons.cli.DefaultParser;

/**
 * Multi Model Server with our own way in: its parts, with a {@link Connection} in front of them that knows HTTP. Hosted its
 * own entrance is a {@link Door}, and there is {@link Models} for its management of models.
 *
 * <pre>
 *   standalone   decoder, encoder   Connection   ramp                    MMS's handlers
 *   hosted       decoder, encoder   Connection   ramp   answers   Door   MMS's handlers, with Models in the place of one
 * </pre>
 *
 * <p>From the ramp small warm requests take the {@link Lane} past all that is behind it.
 *
 * <p>Stock MMS answers pipelined requests in any order, closes connections behind errors and keeps those it was asked to
 * close; and a load that meets an unload of the same name with a 500, with a model that nobody can unload, or not at all.
 * Nothing of it is changed here: this is a subclass that puts another pipeline together.
 */
public final class FrontServer extends ModelServer {

    // Of one connection at a time, so that who sends 64 KiB again and again takes turns with the others.
    private static final RecvByteBufAllocator READS =
            new AdaptiveRecvByteBufAllocator(1024, 4096, RequestDecoder.PIECE_BYTES).maxMessagesPerRead(1);

    private static final int ADDRESS_BYTES = 26; // Netty's: a length, an IPv6 address, its scope, a port

    private final Turnstile turnstile = new Turnstile();
    private final ExecutorService changes = changers();
    private final Connection.Limits limits;
    private final Models.Tools tools;
    private volatile Channel listening;

    private FrontServer(ConfigManager config) {
        super(config);
        boolean isHosted = System.getProperty("mme.gate") != null;
        limits =
                new Connection.Limits(
                        config.getMaxRequestSize(), Long.getLong("mme.bodies"), Long.getLong("mme.idle"), Words.of(isHosted));
        tools = isHosted ? new Models.Tools(turnstile, new Binder(), new Gate(), new Tidying()) : null;
    }

    /** The command line is ModelServer's. */
    public static void main(String[] args) {
        try {
            var options = ConfigManager.Arguments.getOptions();
            ConfigManager.init(new ConfigManager.Arguments(new DefaultParser().parse(options, args, null, false)));
            PluginsManager.getInstance().initialize();
            InternalLoggerFactory.setDefaultFactory(Slf4JLoggerFactory.INSTANCE);
            FrontServer server = new FrontServer(ConfigManager.getInstance());
            Ending.await(server::shut);
            server.startAndWait();
        } catch (Throwable t) {
            t.printStackTrace();
        } finally {
            System.exit(1);
        }
    }

    /** Loads and unloads at the same time, each on a thread: they wait for the runtime, and Netty's threads are for invokes. */
    private static ExecutorService changers() {
        AtomicInteger number = new AtomicInteger();
        return Executors.newCachedThreadPool(
                task -> {
                    Thread thread = new Thread(task, "change-" + number.getAndIncrement());
                    thread.setDaemon(true);
                    return thread;
                });
    }

    @Override
    public ChannelFuture initializeServer(
            Connector connector, EventLoopGroup serverGroup, EventLoopGroup workerGroup, ConnectorType type)
            throws InterruptedException, IOException, GeneralSecurityException {
        if (type == ConnectorType.MANAGEMENT_CONNECTOR) { // standalone: a socket that only we may enter
            return super.initializeServer(connector, serverGroup, workerGroup, type);
        }
        Lane.openOn(workerGroup);
        ChannelInitializer<Channel> pipeline =
                new ChannelInitializer<>() {
                    @Override
                    protected void initChannel(Channel channel) {
                        RequestDecoder decoder = new RequestDecoder();
                        Connection connection = new Connection(limits, decoder);
                        ChannelPipeline handlers = channel.pipeline();
                        handlers.addLast("decoder", decoder)
                                .addLast("encoder", connection.encoder())
                                .addLast("connection", connection)
                                .addLast("ramp", new Lane.Ramp(tools == null ? null : turnstile));
                        if (tools == null) {
                            handlers.addLast("handler", new HttpRequestHandler(handlers(type)));
                        } else {
                            Door door = new Door(handlers(type), turnstile, changes);
                            handlers.addLast("answers", door.answers()).addLast("handler", door);
                        }
                    }
                };
        ChannelFuture bound =
                new ServerBootstrap()
                        .group(serverGroup, workerGroup)
                        .channel(connector.getServerChannel())
                        .option(ChannelOption.SO_BACKLOG, 1024)
                        .childOption(ChannelOption.SO_KEEPALIVE, true)
                        .childOption(ChannelOption.RCVBUF_ALLOCATOR, READS)
                        .childHandler(pipeline)
                        .bind(connector.getSocketAddress())
                        .sync();
        listening = bound.channel();
        return listening.newPromise(); // what MMS would take for its end; ours is told from outside
    }

    private void shut() {
        if (listening != null) {
            listening.eventLoop().execute(this::shutBehindTheLast);
        }
    }

    /** The system resets whoever is connected and not accepted yet when a listening socket is closed. Only the event loop calls. */
    private void shutBehindTheLast() {
        if (listening instanceof EpollServerSocketChannel epoll) {
            Socket socket = (Socket) epoll.fd();
            try {
                socket.listen(0); // of who comes in between all but one ask again in a second, and are refused
                byte[] address = new byte[ADDRESS_BYTES];
                for (int last = socket.accept(address); last >= 0; last = socket.accept(address)) {
                    epoll.pipeline().fireChannelRead(new EpollSocketChannel(last));
                }
                socket.close();
            } catch (IOException e) { // no descriptor for one more: they are reset
                InternalLoggerFactory.getInstance(FrontServer.class).warn("the last connections were not accepted: {}", e);
            }
        }
        listening.close();
    }

    /** MMS's order: each handler passes on what is not its own. */
    private HttpRequestHandlerChain handlers(ConnectorType type) {
        PluginsManager plugins = PluginsManager.getInstance();
        HttpRequestHandlerChain first = new ApiDescriptionRequestHandler(type);
        HttpRequestHandlerChain last = first.setNextHandler(new InferenceRequestHandler(plugins.getInferenceEndpoints()));
        if (tools != null) {
            last = last.setNextHandler(new Models(plugins.getManagementEndpoints(), tools));
        }
        last.setNextHandler(new InvalidRequestHandler());
        return first;
    }
}
