import com.amazonaws.ml.mms.util.JsonUtils;
import com.google.gson.JsonObject;
import io.netty.buffer.Unpooled;
import io.netty.handler.codec.http.DefaultFullHttpResponse;
import io.netty.handler.codec.http.FullHttpResponse;
import io.netty.handler.codec.http.HttpHeaderNames;
import io.netty.handler.codec.http.HttpHeaderValues;
import io.netty.handler.codec.http.HttpResponseStatus;
import io.netty.handler.codec.http.HttpVersion;
import io.netty.util.CharsetUtil;

/**
 * How what is refused here is said: standalone as SageMaker says it, so that boto3 raises its exceptions; hosted as MMS does,
 * for SageMaker frames that itself. The runtime's own words are framed by handler/faults.py in the same two ways.
 */
enum Words {
    SAGEMAKER {
        @Override
        FullHttpResponse refusal(HttpResponseStatus status, String text) {
            boolean isOurs = status.code() >= 500;
            JsonObject fields = new JsonObject();
            fields.addProperty("Message", text);
            return answer(status, isOurs ? "ServiceUnavailable" : "ValidationError", fields);
        }

        @Override
        FullHttpResponse unread(HttpResponseStatus original, String text) {
            JsonObject fields = new JsonObject();
            fields.addProperty("Message", text);
            fields.addProperty("OriginalStatusCode", original.code());
            fields.addProperty("OriginalMessage", text);
            return answer(HttpResponseStatus.FAILED_DEPENDENCY, "ModelError", fields);
        }
    },
    CONTAINER {
        @Override
        FullHttpResponse refusal(HttpResponseStatus status, String text) {
            JsonObject fields = new JsonObject();
            fields.addProperty("code", status.code());
            fields.addProperty("type", status.code() >= 500 ? "ServiceUnavailableException" : "BadRequestException");
            fields.addProperty("message", text);
            return answer(status, null, fields);
        }

        @Override
        FullHttpResponse unread(HttpResponseStatus original, String text) {
            return refusal(original, text);
        }
    };

    static Words of(boolean isHosted) {
        return isHosted ? CONTAINER : SAGEMAKER;
    }

    /** A request that we do not take. */
    abstract FullHttpResponse refusal(HttpResponseStatus status, String text);

    /** A body that no model of ours reads. */
    abstract FullHttpResponse unread(HttpResponseStatus original, String text);

    private static FullHttpResponse answer(HttpResponseStatus status, String type, JsonObject fields) {
        var body = Unpooled.copiedBuffer(JsonUtils.GSON.toJson(fields), CharsetUtil.UTF_8);
        FullHttpResponse response = new DefaultFullHttpResponse(HttpVersion.HTTP_1_1, status, body);
        response.headers()
                .set(HttpHeaderNames.CONTENT_TYPE, HttpHeaderValues.APPLICATION_JSON)
                .setInt(HttpHeaderNames.CONTENT_LENGTH, body.readableBytes());
        if (type != null) {
            response.headers().set("x-amzn-errortype", type);
        }
        if (HttpResponseStatus.SERVICE_UNAVAILABLE.equals(status)) {
            response.headers().setInt(HttpHeaderNames.RETRY_AFTER, 1);
        }
        return response;
    }
}
