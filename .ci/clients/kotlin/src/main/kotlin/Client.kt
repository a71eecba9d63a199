// A booking in Kotlin. The client in Java beside this one shows the rest: refusals, a page and its changes work the
// same way.
package frontdesk

import com.google.gson.Gson
import com.google.type.Date
import example.checkup.hospital.v1.HospitalServiceGrpcKt.HospitalServiceCoroutineStub
import example.checkup.hospital.v1.createHospitalRequest
import example.checkup.hospital.v1.hospital
import example.checkup.hospital.v1.slot
import example.checkup.screening.v1.ScreeningServiceGrpcKt.ScreeningServiceCoroutineStub
import example.checkup.screening.v1.createScreeningRequest
import example.checkup.screening.v1.screening
import io.grpc.Grpc
import io.grpc.InsecureChannelCredentials
import io.grpc.Metadata
import io.grpc.StatusException
import io.grpc.stub.MetadataUtils
import java.nio.file.Path
import java.time.LocalDate
import java.util.UUID
import kotlin.io.path.readText
import kotlin.system.exitProcess
import kotlinx.coroutines.runBlocking

fun main() = runBlocking {
    val config: Map<String, *> = Gson().fromJson(Path.of("proto/service_config.json").readText(), Map::class.java) as Map<String, *>
    val address = System.getenv("CHECKUP_ADDR") ?: "127.0.0.1:8080"
    // Without TLS, as `checkup up` serves it; a gateway wants TlsChannelCredentials.
    val channel = Grpc.newChannelBuilder(address, InsecureChannelCredentials.create()).defaultServiceConfig(config).build()
    try {
        val day = LocalDate.now().plusDays(30)
        val opened = HospitalServiceCoroutineStub(channel).withInterceptors(bearer("ADMIN")).createHospital(
            createHospitalRequest {
                hospital = hospital {
                    displayName = "Kotlin 검진센터"
                    timeZone = "Asia/Seoul"
                }
                initialSlots += slot {
                    date = Date.newBuilder().setYear(day.year).setMonth(day.monthValue).setDay(day.dayOfMonth).build()
                    capacity = 1
                }
                requestId = UUID.randomUUID().toString()
            },
        )
        println("hospital ${opened.name} ${opened.state}")
        val booked = ScreeningServiceCoroutineStub(channel).withInterceptors(bearer("KIM")).createScreening(
            createScreeningRequest {
                screening = screening {
                    customer = "customers/kim"
                    slot = "${opened.name}/slots/$day"
                }
                requestId = UUID.randomUUID().toString()
            },
        )
        println("booked ${booked.name} ${booked.state}")
    } catch (error: StatusException) {
        System.err.println("error: ${error.status.code}: ${error.status.description}")
        exitProcess(1)
    } finally {
        channel.shutdownNow()
    }
}

/** Sends the token that a variable of the environment has with each call. */
fun bearer(variable: String) = MetadataUtils.newAttachHeadersInterceptor(
    Metadata().apply { put(Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER), "Bearer ${System.getenv(variable)}") },
)
