"""The workspace's records: tables, transactions and one repository module per noun. No HTTP, no MQTT, no processes."""
