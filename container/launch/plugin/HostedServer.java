import com.amazonaws.ml.mms.ModelServer;
import com.amazonaws.ml.mms.http.ApiDescriptionRequestHandler;
import com.amazonaws.ml.mms.http.HttpRequestHandlerChain;
import com.amazonaws.ml.mms.http.InferenceRequestHandler;
import com.amazonaws.ml.mms.http.InvalidRequestHandler;
import com.amazonaws.ml.mms.servingsdk.impl.PluginsManager;
import com.amazonaws.ml.mms.util.ConfigManager;
import com.amazonaws.ml.mms.util.Connector;
import com.amazonaws.ml.mms.util.ConnectorType;
import io.netty.bootstrap.ServerBootstrap;
import io.netty.channel.Channel;
import io.netty.channel.ChannelFuture;
import io.netty.channel.ChannelInitializer;
import io.netty.channel.ChannelOption;
import io.netty.channel.EventLoopGroup;
import io.netty.handler.codec.http.HttpObjectAggregator;
import io.netty.handler.codec.http.HttpServerCodec;
import io.netty.util.internal.logging.InternalLoggerFactory;
import io.netty.util.internal.logging.Slf4JLoggerFactory;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.commons.cli.DefaultParser;

/**
 * Multi Model Server for hosted mode: its own parts, with a {@link Door} in front of them and {@link Models} for its
 * management of models.
 *
 * <p>Stock MMS answers a load that meets an unload of the same name with a 500, with a model that nobody can unload, or not
 * at all; see {@link Models}. Nothing of it is changed here: this is a subclass that puts another pipeline together.
 */
public final class HostedServer extends ModelServer {

    private final int maxRequestBytes = ConfigManager.getInstance().getMaxRequestSize();
    private final Turnstile turnstile = new Turnstile();
    private final ExecutorService changes = changers();
    private final Models.Tools tools = new Models.Tools(turnstile, new Binder(), new Gate(), new Tidying());

    private HostedServer(ConfigManager config) {
        super(config);
    }

    /** The command line is ModelServer's. */
    public static void main(String[] args) {
        try {
            var options = ConfigManager.Arguments.getOptions();
            ConfigManager.init(new ConfigManager.Arguments(new DefaultParser().parse(options, args, null, false)));
            PluginsManager.getInstance().initialize();
            InternalLoggerFactory.setDefaultFactory(Slf4JLoggerFactory.INSTANCE);
            new HostedServer(ConfigManager.getInstance()).startAndWait();
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
            throws InterruptedException {
        ChannelInitializer<Channel> pipeline =
                new ChannelInitializer<>() {
                    @Override
                    protected void initChannel(Channel channel) {
                        Door door = new Door(handlers(type), turnstile, changes);
                        channel.pipeline()
                                .addLast("http", new HttpServerCodec())
                                .addLast("aggregator", new HttpObjectAggregator(maxRequestBytes))
                                .addLast("answers", door.answers())
                                .addLast("handler", door);
                    }
                };
        return new ServerBootstrap()
                .group(serverGroup, workerGroup)
                .channel(connector.getServerChannel())
                .option(ChannelOption.SO_BACKLOG, 1024)
                .childOption(ChannelOption.SO_KEEPALIVE, true)
                .childHandler(pipeline)
                .bind(connector.getSocketAddress())
                .sync()
                .channel()
                .closeFuture();
    }

    /** MMS's order: each handler passes on what is not its own. */
    private HttpRequestHandlerChain handlers(ConnectorType type) {
        PluginsManager plugins = PluginsManager.getInstance();
        HttpRequestHandlerChain first = new ApiDescriptionRequestHandler(type);
        first.setNextHandler(new InferenceRequestHandler(plugins.getInferenceEndpoints()))
                .setNextHandler(new Models(plugins.getManagementEndpoints(), tools))
                .setNextHandler(new InvalidRequestHandler());
        return first;
    }
}
