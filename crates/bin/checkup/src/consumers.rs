//! `checkup consumers`: lists the durable consumers of the stream, and removes the one of a team that leaves.

use bus::jetstream::{DurableConsumer, JetStream};
use serde_json::json;

use crate::cli::{ConfigArgs, ConsumersCommand};
use crate::config::Sources;
use crate::exit::{Exit, Failure, chain};
use crate::service::Service;
use crate::terminal;
use crate::terminal::count;

/// Runs one of the `consumers` commands.
///
/// # Errors
/// Fails if the configuration names no broker, the broker does not answer, or there is no such consumer.
pub async fn run(command: ConsumersCommand) -> Result<Exit, Failure> {
    match command {
        ConsumersCommand::List { config, json } => {
            let broker = connect(&config).await?;
            let listed = broker.consumers().await;
            broker.close().await;
            let listed = listed.map_err(|error| unanswered(&error))?;
            terminal::print(&if json { array(&listed) } else { table(&listed) })?;
        }
        ConsumersCommand::Remove { name, config } => {
            if Service::ALL.iter().any(|service| service.row().consumers.contains(&name.as_str())) {
                let help = "without it the service reads every event again; stop the service and use `checkup recover`";
                return Err(Failure::usage(format!("{name} is a consumer of a service of checkup; {help}")));
            }
            let broker = connect(&config).await?;
            let removed = broker.remove_consumer(&name).await;
            broker.close().await;
            if !removed.map_err(|error| unanswered(&error))? {
                let help = "`checkup consumers list` shows those that there are";
                return Err(Failure::failed(format!("there is no consumer {name}; {help}")));
            }
            terminal::print(&format!("removed {name}\n"))?;
        }
    }
    Ok(Exit::Ok)
}

async fn connect(config: &ConfigArgs) -> Result<JetStream, Failure> {
    let Some(options) = Sources::of_process(config).settings()?.events else {
        let help = "name the configuration of the mesh with --config";
        return Err(Failure::usage(format!("the configuration names no broker (events.nats); {help}")));
    };
    JetStream::connect(options).await.map_err(|error| Failure::usage(chain(&error)))
}

fn unanswered(error: &bus::Error) -> Failure {
    Failure::failed(format!("the broker does not do that: {}", chain(error)))
}

fn array(consumers: &[DurableConsumer]) -> String {
    let object = |consumer: &DurableConsumer| {
        let DurableConsumer { name, filter, waiting, unacknowledged, is_read } = consumer;
        json!({
            "consumer": name,
            "subjects": filter,
            "waiting": waiting,
            "unacknowledged": unacknowledged,
            "is_read": is_read,
        })
    };
    format!("{}\n", serde_json::Value::from_iter(consumers.iter().map(object)))
}

fn table(consumers: &[DurableConsumer]) -> String {
    if consumers.is_empty() {
        return "no durable consumers\n".to_owned();
    }
    let mut table = terminal::table(&["consumer", "read now", "waiting", "unacknowledged", "subjects"]);
    for DurableConsumer { name, filter, waiting, unacknowledged, is_read } in consumers {
        let read = if *is_read { "yes" } else { "no" };
        table.add_row([name.clone(), read.to_owned(), count(*waiting), count(*unacknowledged), filter.join("\n")]);
    }
    format!("{table}\n")
}
