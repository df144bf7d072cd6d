import com.amazonaws.ml.mms.archive.DownloadModelException;
import com.amazonaws.ml.mms.archive.InvalidModelException;
import com.amazonaws.ml.mms.archive.Manifest;
import com.amazonaws.ml.mms.archive.ModelArchive;
import com.amazonaws.ml.mms.archive.ModelException;
import com.amazonaws.ml.mms.archive.ModelNotFoundException;
import com.amazonaws.ml.mms.http.BadRequestException;
import com.amazonaws.ml.mms.http.ConflictStatusException;
import com.amazonaws.ml.mms.http.ErrorResponse;
import com.amazonaws.ml.mms.http.InternalServerException;
import com.amazonaws.ml.mms.http.ManagementRequestHandler;
import com.amazonaws.ml.mms.http.StatusResponse;
import com.amazonaws.ml.mms.http.messages.RegisterModelRequest;
import com.amazonaws.ml.mms.util.ConfigManager;
import com.amazonaws.ml.mms.util.JsonUtils;
import com.amazonaws.ml.mms.util.NettyUtils;
import com.amazonaws.ml.mms.wlm.Model;
import com.amazonaws.ml.mms.wlm.ModelManager;
import com.google.gson.JsonParseException;
import io.netty.channel.ChannelHandlerContext;
import io.netty.handler.codec.http.FullHttpRequest;
import io.netty.handler.codec.http.HttpHeaderValues;
import io.netty.handler.codec.http.HttpMethod;
import io.netty.handler.codec.http.HttpResponseStatus;
import io.netty.handler.codec.http.HttpUtil;
import io.netty.handler.codec.http.QueryStringDecoder;
import io.netty.util.CharsetUtil;
import java.io.File;
import java.io.IOException;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.regex.Pattern;
import software.amazon.ai.mms.servingsdk.ModelServerEndpoint;

/**
 * MMS's management of models, with changes of one name in turn. Statuses and texts are MMS's; a failed load also says why.
 *
 * <p>What stock MMS 1.1.11 does when they overlap, and why each of its steps is taken here instead of in
 * ModelManager.registerModel: a load ends with models.put, so one that was unregistered meanwhile comes back as a ghost
 * without a process, or replaces the next one of its name; a worker that then finds no socket to connect to fails in its own
 * clean-up (its channel is null there), tells nobody, and the caller waits for ever; and a failed load is answered first and
 * unregistered afterwards, by its name, which may be another's by then. registerModel also unpacks any zip it is pointed at,
 * wherever its entries say, and fetches http urls.
 *
 * <p>Rule: a name's model is put in MMS's table, started, loaded and taken out by whoever holds the turnstile's change of it.
 */
final class Models extends ManagementRequestHandler {

    /** What all connections share. */
    record Tools(Turnstile turnstile, Binder binder, Gate gate, Tidying tidying) {}

    private static final Pattern REMOTE = Pattern.compile("https?://.*", Pattern.CASE_INSENSITIVE | Pattern.DOTALL);
    private static final Pattern NAME = Pattern.compile("[^/\\p{Cntrl}]{1,1024}");
    private static final int MAX_WORKERS = 64; // each is two threads, a connection and its buffers
    // Names of sockets, never used again: a worker of an unloaded model may still be trying to connect.
    private static final AtomicInteger PORTS = new AtomicInteger(9000);
    // A load is answered, or given up by MMS, in its response timeout. This is for when MMS loses it.
    private static final long GRACE_S = 5;
    private static final long LEAVE_S = 60; // InvokeEndpoint's limit: after that nobody waits for an answer

    private final Tools tools;
    private final ModelManager manager = ModelManager.getInstance();
    private final ConfigManager config = ConfigManager.getInstance();

    Models(Map<String, ModelServerEndpoint> endpoints, Tools tools) {
        super(endpoints);
        this.tools = tools;
    }

    /** Whether a request loads, unloads or scales a model: it may take minutes. */
    static boolean isChange(HttpMethod method, String[] segments) {
        if (segments.length < 2 || !"models".equals(segments[1])) {
            return false;
        }
        return segments.length == 2
                ? HttpMethod.POST.equals(method)
                : segments.length == 3 && (HttpMethod.DELETE.equals(method) || HttpMethod.PUT.equals(method));
    }

    @Override
    protected void handleRequest(
            ChannelHandlerContext ctx, FullHttpRequest request, QueryStringDecoder decoder, String[] segments)
            throws ModelException {
        if (!isChange(request.method(), segments)) {
            super.handleRequest(ctx, request, decoder, segments);
            return;
        }
        boolean isLoad = segments.length == 2;
        RegisterModelRequest wanted = isLoad ? parse(request, decoder) : null;
        String name = isLoad ? nameOf(wanted) : segments[2];
        try {
            tools.turnstile.beginChange(name);
            try {
                if (isLoad) {
                    load(ctx, name, wanted);
                    return;
                }
                if (HttpMethod.DELETE.equals(request.method())) {
                    unload(ctx, name);
                } else {
                    refuseWorkers(decoder);
                    super.handleRequest(ctx, request, decoder, segments);
                }
            } finally {
                tools.turnstile.endChange(name);
            }
        } catch (IOException | InterruptedException | ExecutionException | TimeoutException e) {
            throw new InternalServerException("Failed to change model: " + name, e);
        }
    }

    /** With none, calls of a model would wait for ever; thousands are thousands of threads. */
    private static void refuseWorkers(QueryStringDecoder decoder) {
        int least = NettyUtils.getIntParameter(decoder, "min_worker", 1);
        int most = NettyUtils.getIntParameter(decoder, "max_worker", least);
        if (least < 1 || least > MAX_WORKERS || most > MAX_WORKERS) {
            throw new BadRequestException("min_worker and max_worker go from 1 to " + MAX_WORKERS + ".");
        }
    }

    private static RegisterModelRequest parse(FullHttpRequest request, QueryStringDecoder decoder) {
        if (HttpHeaderValues.APPLICATION_JSON.contentEqualsIgnoreCase(HttpUtil.getMimeType(request))) {
            String text = request.content().toString(CharsetUtil.UTF_8);
            try {
                RegisterModelRequest wanted = JsonUtils.GSON.fromJson(text, RegisterModelRequest.class);
                if (wanted != null) {
                    return wanted;
                }
            } catch (JsonParseException e) { // its own words name classes of Java's
                throw new BadRequestException("The body is no JSON object with model_name and url.");
            }
            throw new BadRequestException("The body is empty; send a JSON object with model_name and url.");
        }
        return new RegisterModelRequest(decoder);
    }

    /** The model's name, and all that can be refused before it is anybody's turn. Nothing of a bundle is read here: its own
     * manifest could name it, but SageMaker always does, and whatever is in there is the runtime's to open. */
    private String nameOf(RegisterModelRequest wanted) throws ModelException {
        String url = wanted.getModelUrl();
        if (url == null) {
            throw new BadRequestException("Parameter url is required.");
        }
        if (url.replaceAll("[/.\\s]", "").isEmpty()) { // the store itself, or all of the machine
            throw new BadRequestException("Parameter url must name a model's directory or archive, not: " + url);
        }
        runtimeOf(wanted);
        if (REMOTE.matcher(url).matches()) {
            throw new DownloadModelException("Failed to download model from: " + url + ", models are paths on this machine");
        }
        if (url.contains("..")) {
            throw new ModelNotFoundException("Relative path is not allowed in url: " + url);
        }
        File location = new File(config.getModelStore(), url);
        if (!location.isDirectory() && !location.isFile()) {
            throw new ModelNotFoundException("Model not found in model store: " + url);
        }
        if (wanted.getModelName() == null || wanted.getModelName().isEmpty()) {
            throw new InvalidModelException("Model name is not defined.");
        }
        if (!NAME.matcher(wanted.getModelName()).matches()) { // with a slash it could be neither invoked nor unloaded
            throw new BadRequestException("A model's name has up to 1024 characters, none of them a slash or a control character.");
        }
        return wanted.getModelName();
    }

    private static Manifest.RuntimeType runtimeOf(RegisterModelRequest wanted) {
        try {
            return wanted.getRuntime() == null
                    ? Manifest.RuntimeType.PYTHON
                    : Manifest.RuntimeType.fromValue(wanted.getRuntime());
        } catch (IllegalArgumentException e) {
            throw new BadRequestException(e);
        }
    }

    private void load(ChannelHandlerContext ctx, String name, RegisterModelRequest wanted)
            throws ModelException, IOException, InterruptedException, ExecutionException, TimeoutException {
        Model model = describe(name, wanted);
        if (manager.getModels().putIfAbsent(name, model) != null) {
            throw new ConflictStatusException("Model " + name + " is already registered.");
        }
        boolean stays = false;
        try {
            tools.binder.bind(model.getPort());
            int workers = wanted.getInitialWorkers();
            if (workers <= 0) {
                stays = true;
                NettyUtils.sendJsonResponse(ctx, new StatusResponse("Model \"" + name + "\" registered"));
                return;
            }
            var loading = manager.updateModel(name, workers, workers);
            if (!wanted.isSynchronous()) {
                stays = true;
                NettyUtils.sendJsonResponse(
                        ctx, new StatusResponse("Processing worker updates..."), HttpResponseStatus.ACCEPTED);
                return;
            }
            HttpResponseStatus status = loading.get(model.getResponseTimeoutSeconds() + GRACE_S, TimeUnit.SECONDS);
            if (HttpResponseStatus.OK.equals(status)) {
                stays = true;
                boolean isWhole = manager.scaleRequestStatus(name);
                NettyUtils.sendJsonResponse(
                        ctx,
                        new StatusResponse(isWhole ? "Workers scaled" : "Workers scaling in progress..."),
                        isWhole ? status : new HttpResponseStatus(210, "Partial Success"));
                return;
            }
            Gate.Reason reason = tools.gate.whyRefused(model.getPort());
            if (reason == null) { // the runtime died of it, or with it
                status = HttpResponseStatus.SERVICE_UNAVAILABLE;
                reason = new Gate.Reason("ServiceUnavailableException", Door.RESTARTING);
            }
            forget(model);
            stays = true; // gone, and in good order
            NettyUtils.sendJsonResponse(ctx, new ErrorResponse(status.code(), reason.type(), reason.text()), status);
        } finally {
            if (!stays) {
                forget(model);
            }
        }
    }

    private Model describe(String name, RegisterModelRequest wanted) {
        Manifest manifest = new Manifest();
        manifest.setRuntime(runtimeOf(wanted));
        manifest.getModel().setModelName(name);
        String handler = wanted.getHandler();
        manifest.getModel().setHandler(handler == null ? config.getMmsDefaultServiceHandler() : handler);
        File location = new File(config.getModelStore(), wanted.getModelUrl());
        File directory = location.isFile() ? Archives.DIRECTORY : location;
        String preload = wanted.getPreloadModel();
        Model model =
                new Model(
                        new ModelArchive(manifest, wanted.getModelUrl(), directory, false),
                        config.getJobQueueSize(),
                        preload == null ? config.getPreloadModel() : preload);
        model.setBatchSize(wanted.getBatchSize());
        model.setMaxBatchDelay(wanted.getMaxBatchDelay());
        int timeout = wanted.getResponseTimeoutSeconds();
        model.setResponseTimeoutSeconds(timeout == -1 ? config.getDefaultResponseTimeoutSeconds() : timeout);
        model.setPort(PORTS.getAndIncrement());
        model.setServerThread(new NoProcess(model));
        return model;
    }

    private void unload(ChannelHandlerContext ctx, String name)
            throws ModelException, IOException, InterruptedException {
        Model model = manager.getModels().get(name);
        if (model == null) {
            throw new ModelNotFoundException("Model not found: " + name);
        }
        forget(model);
        NettyUtils.sendJsonResponse(ctx, new StatusResponse("Model \"" + name + "\" unregistered"));
    }

    /** Have MMS end the model's workers and take it out of its table. Its memory is back when this returns. */
    private void forget(Model model) throws IOException, InterruptedException {
        int port = model.getPort();
        tools.turnstile.shut(model.getModelName(), LEAVE_S);
        manager.unregisterModel(model.getModelName());
        tools.gate.awaitUnloaded(port);
        tools.binder.release(port);
        tools.tidying.unloaded();
    }
}
