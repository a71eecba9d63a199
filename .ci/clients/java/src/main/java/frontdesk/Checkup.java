package frontdesk;

import com.google.gson.Gson;
import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.ErrorInfo;
import example.checkup.error.v1.Reason;
import io.grpc.ClientInterceptor;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.MetadataUtils;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.stream.Collectors;

/** How to reach the services of checkup, and how to read why they refuse. */
final class Checkup {
  private Checkup() {}

  /** Opens a channel. The service config gives each call its deadline and says what is sent again. */
  static ManagedChannel connect(String address) throws IOException {
    Map<String, ?> config = new Gson().fromJson(Files.readString(Path.of("proto/service_config.json")), Map.class);
    // Without TLS, as `checkup up` serves it; a gateway wants TlsChannelCredentials.
    return Grpc.newChannelBuilder(address, InsecureChannelCredentials.create()).defaultServiceConfig(config).build();
  }

  /** Sends a token with each call. */
  static ClientInterceptor bearer(String token) {
    Metadata headers = new Metadata();
    headers.put(Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER), "Bearer " + token);
    return MetadataUtils.newAttachHeadersInterceptor(headers);
  }

  /** An error as one line for a person. */
  static String explain(StatusRuntimeException error) {
    String code = Refusal.of(error).map(Refusal::toString).orElse(error.getStatus().getCode().name());
    String cause = error.getCause() == null ? "" : ": " + error.getCause().getMessage();
    return code + ": " + error.getStatus().getDescription() + cause;
  }

  /**
   * Why a service of checkup refused a call, in a form to act on.
   *
   * @param reason UNRECOGNIZED where the stubs are older than the reason: then the code alone decides
   */
  record Refusal(Status.Code code, Reason reason, Map<String, String> metadata) {
    /** Takes an error apart; empty where no service of checkup made it, as when nobody could be reached. */
    static Optional<Refusal> of(StatusRuntimeException error) {
      com.google.rpc.Status status = StatusProto.fromThrowable(error);
      for (Any detail : status == null ? List.<Any>of() : status.getDetailsList()) {
        try {
          if (detail.is(ErrorInfo.class) && detail.unpack(ErrorInfo.class).getDomain().equals("checkup")) {
            ErrorInfo info = detail.unpack(ErrorInfo.class);
            return Optional.of(new Refusal(error.getStatus().getCode(), reason(info.getReason()), info.getMetadataMap()));
          }
        } catch (InvalidProtocolBufferException malformed) {
          throw new IllegalStateException("the details of an error do not decode", malformed);
        }
      }
      return Optional.empty();
    }

    private static Reason reason(String name) {
      try {
        return Reason.valueOf(name);
      } catch (IllegalArgumentException unknown) {
        return Reason.UNRECOGNIZED;
      }
    }

    @Override
    public String toString() {
      return new TreeMap<>(metadata)
          .entrySet().stream()
              .map(entry -> " " + entry.getKey() + "=" + entry.getValue())
              .collect(Collectors.joining("", code + " " + reason, ""));
    }
  }
}
