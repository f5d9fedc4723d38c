"""RabbitMQ: the topology as one table, a publisher that knows when a message is safe, a consumer that settles."""
