"""The variables of docker-compose.yaml and docker-stack.yaml that are not settings of a service.

A test holds names and defaults equal to what the two files use; ``make docs`` writes them into .env.example.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Variable:
    """One variable. An empty default means what the sentence says."""

    name: str
    default: str
    sentence: str


VARIABLES: Sequence[Variable] = (
    Variable("DOMAIN", "localhost", "The server's name, for a certificate of Let's Encrypt."),
    Variable(
        "ACME_EMAIL", "", "Turns Let's Encrypt on for DOMAIN; its warnings go there. Empty: the files in CERTS_DIR."
    ),
    Variable("CERTS_DIR", "./traefik/certs", "Folder of server.crt and server.key."),
    Variable("BIND_ADDRESS", "0.0.0.0", "The host's address to serve on; only the reverse proxy listens."),  # noqa: S104
    Variable("HTTP_PORT", "80", "Redirects to HTTPS."),
    Variable("HTTPS_PORT", "443", "The door."),
    Variable("RATE_LIMIT_AVERAGE", "", "Requests per second of one client, on average. Empty: 100."),
    Variable("RATE_LIMIT_BURST", "", "Requests of one client that may come at once. Empty: 200."),
    Variable("IN_FLIGHT_LIMIT", "", "Requests of one client at the same time, waiting polls included. Empty: 200."),
    Variable("TRANSFER_TIMEOUT", "24h", "Longest upload or download of one request."),
    Variable("DATA_DIR", "", "Folder on the host for all data: files, database, queue. Empty: named volumes."),
    Variable("SECRETS_DIR", "./secrets", "Folder of the secrets' files, which `make secrets` makes."),
    Variable("CPU_CONSUMERS", "1", "Tasks without a GPU that run at once on this host, or on each one of a swarm."),
    Variable("CONSUMER_USER", "0:0", "User of the consumers; 10001:GROUP_OF_THE_SOCKET works too, and is slower."),
    Variable("DOCKER_SOCKET", "/var/run/docker.sock", "The engine that runs the models."),
    Variable("STOP_GRACE", "90s", "How long a stopping consumer is waited for; keep it above DRAIN_SECONDS."),
    Variable("PROXY_MEMORY", "512m", "Memory limit of the reverse proxy."),
    Variable("PUBLIC_API_MEMORY", "512m", "Memory limit of public_api."),
    Variable("PRIVATE_API_MEMORY", "1g", "Memory limit of private_api."),
    Variable("CONSUMER_MEMORY", "512m", "Memory limit of each consumer; models have limits of their own."),
    Variable("POSTGRES_MEMORY", "1g", "Memory limit of PostgreSQL."),
    Variable("RABBITMQ_MEMORY", "1g", "Memory limit of RabbitMQ."),
    Variable("ONLINE_GATEWAY_MEMORY", "1g", "Memory limit of the online gateway."),
    Variable("MODELHOST_MEMORY", "4g", "Memory limit of each model host, whose files and models are in memory."),
    Variable(
        "MODELHOSTS", "2", "Workers that serve uploaded ONNX models; --scale modelhost=4 changes it while running."
    ),
    Variable("PUBLIC_API_REPLICAS", "2", "Swarm: containers of public_api."),
    Variable("SWARM_CPU_CONSUMERS", "32", "Swarm: the most consumers without a GPU on all hosts together."),
    Variable("SECRETS_VERSION", "1", "Swarm: to be changed together with a file in SECRETS_DIR."),
    Variable("CERTS_VERSION", "1", "Swarm: to be changed together with the certificate."),
    Variable("CONFIGS_VERSION", "1", "Swarm: to be changed together with traefik/dynamic or rabbitmq/rabbitmq.conf."),
    Variable("DOCKER_ROOT", "/var/lib/docker", "Swarm: where the engines keep their volumes."),
    Variable("IMAGES", "inference-server", "Prefix of the platform's images, such as registry.example.org/inference."),
    Variable(
        "PULL_POLICY",
        "never",
        "never: those that are not here are built. missing: they come from the registry that IMAGES names.",
    ),
    Variable("VERSION", "0.1.0", "Tag of the platform's images."),
    Variable("PYTHON_IMAGE", "python:3.12-slim", "What the platform's images are built on."),
    Variable("TRAEFIK_IMAGE", "traefik:v3", "The reverse proxy."),
    Variable("POSTGRES_IMAGE", "postgres:17", "The database."),
    Variable("RABBITMQ_IMAGE", "rabbitmq:4-management", "The broker."),
    Variable(
        "SITE_CA", "", "Builds: the text of a certificate authority that pip is to trust besides the public ones."
    ),
    Variable("REVISION", "", "Builds: the commit, for the images' label."),
)
"""In the order of .env.example."""

SECRETS: Sequence[Variable] = (
    Variable("INTERNAL_TOKEN", "", "Shared by the services. Empty: random."),
    Variable("WORKER_TOKEN", "", "Shared by the online gateway and its workers. Empty: random."),
    Variable("ADMIN_TOKEN", "", "For those who may change what the online gateway serves. Empty: random."),
    Variable("POSTGRES_PASSWORD", "", "Of the database's user. Empty: random."),
    Variable("RABBITMQ_PASSWORD", "", "Of the broker's user. Empty: random."),
)
"""What `make secrets` takes from .env or the environment and writes to files."""

FIXED_SETTINGS = frozenset(
    {
        "PRIVATE_API_URL", "HOST", "PORT", "DATABASE_URL", "RABBITMQ_URL", "RUNNER", "MODELS_FOLDER",
        "ONLINE_GATEWAY", "ENDPOINT", "WORKER_ID", "WORKER_HOST", "WORKER_PORT", "MODULES_DIR", "CONTENTS_DIR",
    }
)  # fmt: skip
"""Settings of services that the deployment chooses itself: they do not belong into its .env."""

DEPLOYED_DEFAULTS: Mapping[str, str] = MappingProxyType(
    {"SCRATCH_DIR": "/var/lib/inference-server/scratch", "LOG_FORMAT": "json", "LEAVE_SECONDS": "10"}
)
"""Settings of services that have another default in the deployment."""
