-- A role and a database for each service; nobody may use another's. The collation has to be C: lists are merged by
-- bytes.
CREATE ROLE hospital LOGIN PASSWORD 'dev-only-hospital';
CREATE ROLE screening LOGIN PASSWORD 'dev-only-screening';
CREATE ROLE reservation LOGIN PASSWORD 'dev-only-reservation';
CREATE ROLE marketing LOGIN PASSWORD 'dev-only-marketing';
CREATE DATABASE hospital OWNER hospital TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C';
CREATE DATABASE screening OWNER screening TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C';
CREATE DATABASE reservation OWNER reservation TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C';
CREATE DATABASE marketing OWNER marketing TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C';
REVOKE CONNECT ON DATABASE hospital, screening, reservation, marketing FROM PUBLIC;
