//! The rows of the long lists: a few that the services make, and copies of those.

use contract::hospital::v1::{CapacityRequest, CreateCapacityRequestRequest};
use runtime::entropy;

use crate::Error;
use crate::caller::Token;
use crate::customers::Customers;
use crate::hot::{Hot, booking};
use crate::testbed::Testbed;

/// The hospital whose rows are copied.
pub(super) const HOSPITAL: &str = "bench-many";
/// The customer whose rows are copied.
pub(super) const CUSTOMER: &str = "many";
/// The capacity of a slot. The copies of its claims exceed it.
const PLACES: i32 = 50_000;
/// How many copies one statement makes, so that no statement runs too long.
const COPIES_PER_STATEMENT: u64 = 50_000;
/// A table and how its copies differ: `t` is the copied row, `i` the number of the copy.
struct Copies {
    database: &'static str,
    table: &'static str,
    /// A condition that only rows made by the services fulfil, where copies of copies would get ever longer names.
    /// HOSPITAL and CUSTOMER are replaced by the ids.
    made: &'static str,
    changed: &'static str,
    /// The table gets the wanted number of rows divided by this.
    each: u64,
}

/// The tables to copy. Copies of slots belong to copies of hospitals.
const COPIES: [Copies; 8] = [
    Copies {
        database: "hospital",
        table: "hospital",
        made: "id = 'HOSPITAL'",
        changed: "'id', t.id || '-' || i, 'uid', gen_random_uuid(), 'create_time', t.create_time + i",
        each: 10,
    },
    Copies {
        database: "hospital",
        table: "slot",
        made: "hospital = 'HOSPITAL'",
        changed: "'id', replace(replace(t.id, t.hospital, t.hospital || '-' || i / 100), t.date, (t.date::date + i % 100)::text), \
                  'hospital', t.hospital || '-' || i / 100, 'date', (t.date::date + i % 100)::text",
        each: 1,
    },
    Copies { database: "hospital", table: "claim", made: "true", changed: "'screening', gen_random_uuid()", each: 1 },
    Copies {
        database: "hospital",
        table: "capacity_request",
        made: "true",
        changed: "'uid', gen_random_uuid(), 'create_time', t.create_time + i",
        each: 1,
    },
    Copies {
        database: "screening",
        table: "screening",
        made: "customer = 'CUSTOMER'",
        changed: "'id', gen_random_uuid(), 'customer', t.customer || '-' || i, 'create_time', t.create_time + i",
        each: 1,
    },
    Copies {
        database: "reservation",
        table: "reservation",
        made: "customer = 'customers/CUSTOMER'",
        changed: "'screening', gen_random_uuid(), 'customer', t.customer || '-' || i, 'create_time', t.create_time + i",
        each: 1,
    },
    Copies {
        database: "mypage",
        table: "item_version",
        made: "true",
        changed: "'id', t.id + i, 'screening', gen_random_uuid(), 'position', t.position + i, 'date', (t.date::date + i % 3650)::text",
        each: 1,
    },
    Copies {
        database: "marketing",
        table: "signal",
        made: "hospital = 'hospitals/HOSPITAL'",
        changed: "'slot', replace(replace(t.slot, t.hospital, t.hospital || '-' || i / 100), t.date, (t.date::date + i % 100)::text), \
                  'hospital', t.hospital || '-' || i / 100, 'date', (t.date::date + i % 100)::text, 'end_time', t.end_time + i",
        each: 1,
    },
];

/// Makes a hospital, a booking and a capacity request through the services.
pub(super) async fn template(testbed: &Testbed, customers: Customers) -> Result<(), Error> {
    let admin = testbed.caller("hospital", Token::admin(&testbed.signer)?)?;
    let hot = Hot::open(&admin, HOSPITAL, PLACES, customers).await?;
    let slot = hot.any(0).to_owned();
    let customers = testbed.caller("screening", Token::admin(&testbed.signer)?)?;
    let request = customers.request(booking(format!("customers/{CUSTOMER}"), slot.clone()));
    customers.screening(0).create_screening(request).await.map_err(Error::call("CreateScreening"))?;
    let asked = CreateCapacityRequestRequest {
        parent: hot.hospital.clone(),
        capacity_request: Some(CapacityRequest {
            slot,
            additional_capacity: 1,
            justification: "measured".to_owned(),
            ..Default::default()
        }),
        request_id: entropy::uuid_v4().to_string(),
    };
    let marketing = testbed.caller("hospital", Token::marketing(&testbed.signer)?)?;
    let asked = marketing.hospital().create_capacity_request(marketing.request(asked)).await;
    asked.map(drop).map_err(Error::call("CreateCapacityRequest"))
}

/// Copies the rows until every table has `count`. Calls `phase` with the number of steps, and `done` after each.
pub(super) async fn multiply(
    testbed: &mut Testbed,
    count: u64,
    done: &(dyn Fn() + Sync),
    phase: &(dyn Fn(u32) + Sync),
) -> Result<(), Error> {
    let postgres = testbed.mesh()?.postgres();
    let chunks: u64 = COPIES.iter().map(|copies| (count / copies.each).div_ceil(COPIES_PER_STATEMENT)).sum();
    phase(u32::try_from(chunks).unwrap_or(u32::MAX));
    for Copies { database, table, made, changed, each } in COPIES {
        let made = made.replace("HOSPITAL", HOSPITAL).replace("CUSTOMER", CUSTOMER);
        let wanted = count / each;
        let mut from = 1;
        while from <= wanted {
            let to = (from + COPIES_PER_STATEMENT - 1).min(wanted);
            let statement = format!(
                "INSERT INTO {table} SELECT r.* FROM (SELECT * FROM {table} WHERE {made} ORDER BY 1 LIMIT 1) t, generate_series({from}, {to}) i, \
                 LATERAL jsonb_populate_record(t::{table}, jsonb_build_object('i', i, {changed})) r"
            );
            postgres.sql(database, &statement).await?;
            from = to + 1;
            done();
        }
        postgres.sql(database, &format!("VACUUM (ANALYZE) {table}")).await?;
    }
    Ok(())
}
