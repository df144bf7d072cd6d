"""Manifests for a fleet on Kubernetes: replicas with names that stay, HAProxy before them, and what scales and guards them.

Rule: a replica's name is its place on the ring. So replicas are a StatefulSet: one that is replaced comes back to its own
models, and every balancer knows them by the same numbers.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from textwrap import indent

from container.operate.fleet import haproxy
from container.operate.fleet.replicas import Address, Fleet
from container.operate.troubles import Misused
from handler.stores.location import LocationInvalid, beside

IMAGE = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/multi-model-endpoint@sha256:" + "0" * 64
PORT, ADMIN_PORT = 8080, 8081
# The image's user; Dockerfile.
USER = 10001
# HAProxy's own image runs as this one.
BALANCER_USER = 99
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,40}[a-z0-9])?")  # a DNS label with room for what is put behind it
_MEMORY = re.compile(r"[1-9][0-9]{0,6}(Ki|Mi|Gi|Ti)")


@dataclass(frozen=True, slots=True)
class Wanted:
    """least, most: replicas. memory: of one, in Kubernetes' own words, such as 4Gi."""

    name: str = "multi-model-endpoint"
    namespace: str = "default"
    models: str = "s3://acme-models/prod/"
    image: str = IMAGE
    least: int = 4
    most: int = 12
    memory: str = "4Gi"
    load_percent: int | None = None

    def __post_init__(self) -> None:
        for name in (self.name, self.namespace):
            if not _NAME.fullmatch(name):
                raise Misused(f"{name!r} is no name: up to 42 small letters, digits and dashes, a letter first")
        if not 1 <= self.least <= self.most <= 100:
            raise Misused(f"from {self.least} to {self.most} replicas: at least 1, at most 100, and in this order")
        if not _MEMORY.fullmatch(self.memory):
            raise Misused(f"{self.memory!r} is no memory such as 4Gi")
        if not self.models.startswith("s3://"):
            raise Misused(
                f"{self.models!r} is a directory of this machine, and no pod has it: write s3://bucket/prefix/"
            )
        try:
            beside(self.models, ".warm")  # where replicas note what they are asked for most
        except LocationInvalid as error:
            raise Misused(str(error)) from error
        for text in (self.models, self.image):
            if not text.isprintable() or '"' in text or "\\" in text:
                raise Misused(f"{text!r} cannot be written into a manifest")

    @classmethod
    def of(cls, chosen: argparse.Namespace) -> Wanted:
        return cls(
            chosen.name,
            chosen.namespace,
            chosen.models,
            chosen.image or IMAGE,
            chosen.replicas,
            chosen.most,
            chosen.memory,
            chosen.load,
        )

    @property
    def fleet(self) -> Fleet:
        domain = f"{self.name}-replicas.{self.namespace}.svc.cluster.local"
        replicas = tuple(Address(f"{self.name}-{at}.{domain}", PORT, ADMIN_PORT) for at in range(self.most))
        return Fleet(Address("0.0.0.0", PORT), replicas, load_percent=self.load_percent)


def manifests(wanted: Wanted) -> str:
    """All of them, as YAML with the reasons in it."""
    return _TEMPLATE.format(
        name=wanted.name,
        namespace=wanted.namespace,
        models=wanted.models,
        image=wanted.image,
        least=wanted.least,
        most=wanted.most,
        memory=wanted.memory,
        port=PORT,
        admin_port=ADMIN_PORT,
        user=USER,
        balancer_user=BALANCER_USER,
        haproxy=indent(haproxy.configuration(wanted.fleet), "    "),
    )


_TEMPLATE = """\
# A fleet of replicas that share the models, and HAProxy before them, which sends each model's calls where the model is.
# `mme fleet kubernetes` prints this for other names and numbers.
#
# The service account's role (IRSA, or EKS Pod Identity) needs s3:GetObject and s3:ListBucket on the models' prefix, and for
# the warm list s3:GetObject, s3:PutObject and s3:ListBucket on the same prefix with .warm behind it. Replace the image's
# digest by the one that `./build.sh push` prints, and the label of the namespace that Prometheus runs in.
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {name}
  namespace: {namespace}
  annotations:
    eks.amazonaws.com/role-arn: arn:aws:iam::123456789012:role/multi-model-endpoint-reads-models
automountServiceAccountToken: false
---
# Each replica's own name in the DNS, ready or not: HAProxy finds out by itself who is.
apiVersion: v1
kind: Service
metadata:
  name: {name}-replicas
  namespace: {namespace}
  labels: {{app: {name}, part: replica}}
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector: {{app: {name}, part: replica}}
  ports:
    - {{name: http, port: {port}, targetPort: http}}
    - {{name: admin, port: {admin_port}, targetPort: admin}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: {name}
  namespace: {namespace}
  labels: {{app: {name}, part: replica}}
spec:
  replicas: {least}                     # from here on the HorizontalPodAutoscaler's
  serviceName: {name}-replicas
  podManagementPolicy: Parallel         # they do not wait for each other; updates still go one by one
  minReadySeconds: 5                    # until HAProxy has seen that one is back
  selector:
    matchLabels: {{app: {name}, part: replica}}
  template:
    metadata:
      labels: {{app: {name}, part: replica}}
    spec:
      serviceAccountName: {name}
      automountServiceAccountToken: false
      enableServiceLinks: false
      terminationGracePeriodSeconds: 40   # longer than preStop and MME_DRAIN_S
      topologySpreadConstraints:
        - {{maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: ScheduleAnyway,
           labelSelector: {{matchLabels: {{app: {name}, part: replica}}}}}}
        - {{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway,
           labelSelector: {{matchLabels: {{app: {name}, part: replica}}}}}}
      securityContext:
        runAsNonRoot: true
        runAsUser: {user}
        runAsGroup: {user}
        seccompProfile: {{type: RuntimeDefault}}
      containers:
        - name: endpoint
          image: "{image}"
          env:
            - {{name: MME_MODELS, value: "{models}"}}
            - {{name: MME_ENDPOINT_NAME, value: "{name}"}}
            # What this replica is asked for most it has in memory before it is ready again, under its own name.
            - {{name: MME_WARM, value: beside}}
            - {{name: MME_REPLICA, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}
            - {{name: MME_ADMIN_PORT, value: "{admin_port}"}}
            - {{name: MME_ADMIN_HOST, value: 0.0.0.0}}
          ports:
            - {{name: http, containerPort: {port}}}
            - {{name: admin, containerPort: {admin_port}}}
          resources:
            requests: {{cpu: "1", memory: {memory}, ephemeral-storage: 100Mi}}
            limits: {{cpu: "2", memory: {memory}, ephemeral-storage: 100Mi}}   # what the memory leaves is for models
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {{drop: [ALL]}}
          volumeMounts:
            - {{name: scratch, mountPath: /tmp}}
          lifecycle:
            preStop:
              exec: {{command: [sleep, "1"]}}   # HAProxy is told by /readyz, which says 503 from SIGTERM on
          startupProbe:
            httpGet: {{path: /readyz, port: admin}}
            periodSeconds: 1
            timeoutSeconds: 5
            failureThreshold: 120
          readinessProbe:
            httpGet: {{path: /readyz, port: admin}}
            periodSeconds: 5
            timeoutSeconds: 5
          livenessProbe:
            httpGet: {{path: /healthz, port: admin}}
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 3
      volumes:
        - name: scratch
          emptyDir: {{medium: Memory, sizeLimit: 64Mi}}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {name}-balancer
  namespace: {namespace}
data:
  haproxy.cfg: |
{haproxy}---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {name}-balancer
  namespace: {namespace}
  labels: {{app: {name}, part: balancer}}
spec:
  replicas: 2
  selector:
    matchLabels: {{app: {name}, part: balancer}}
  template:
    metadata:
      labels: {{app: {name}, part: balancer}}
    spec:
      automountServiceAccountToken: false
      enableServiceLinks: false
      terminationGracePeriodSeconds: 75   # SIGUSR1: no new connections, and the calls that are inside are answered
      topologySpreadConstraints:
        - {{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway,
           labelSelector: {{matchLabels: {{app: {name}, part: balancer}}}}}}
      securityContext:
        runAsNonRoot: true
        runAsUser: {balancer_user}
        runAsGroup: {balancer_user}
        seccompProfile: {{type: RuntimeDefault}}
      containers:
        - name: haproxy
          image: haproxy:2.8-alpine       # by its digest, where you have one
          command: [haproxy, -db, -f, /etc/fleet/haproxy.cfg]
          ports:
            - {{name: http, containerPort: {port}}}
          resources:
            requests: {{cpu: 250m, memory: 128Mi, ephemeral-storage: 50Mi}}
            limits: {{cpu: "1", memory: 256Mi, ephemeral-storage: 50Mi}}   # its log, as long as it lies on the node
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {{drop: [ALL]}}
          volumeMounts:
            - {{name: configuration, mountPath: /etc/fleet, readOnly: true}}
          lifecycle:
            preStop:
              exec: {{command: [sh, -c, "sleep 5; kill -USR1 1"]}}   # until nobody sends anything here any more
          readinessProbe:
            httpGet: {{path: /fleet-readyz, port: http}}
            periodSeconds: 2
          livenessProbe:
            tcpSocket: {{port: http}}
            periodSeconds: 10
      volumes:
        - name: configuration
          configMap: {{name: {name}-balancer}}
---
# Where callers go.
apiVersion: v1
kind: Service
metadata:
  name: {name}
  namespace: {namespace}
spec:
  selector: {{app: {name}, part: balancer}}
  ports:
    - {{name: http, port: 80, targetPort: http}}
---
# More replicas when they compute, or when the memory of all is too small: models that come back within minutes of having been
# evicted. The second needs a server for custom metrics; with prometheus-adapter this rule:
#   - seriesQuery: mme_reloads_within_minutes_total{{namespace!="",pod!=""}}
#     resources: {{overrides: {{namespace: {{resource: namespace}}, pod: {{resource: pod}}}}}}
#     name: {{as: mme_reloads_per_second}}
#     metricsQuery: sum(rate(<<.Series>>{{<<.LabelMatchers>>}}[2m])) by (<<.GroupBy>>)
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {name}
  namespace: {namespace}
spec:
  scaleTargetRef: {{apiVersion: apps/v1, kind: StatefulSet, name: {name}}}
  minReplicas: {least}
  maxReplicas: {most}                     # HAProxy's configuration names as many
  metrics:
    - type: Resource
      resource: {{name: cpu, target: {{type: Utilization, averageUtilization: 70}}}}
    - type: Pods
      pods: {{metric: {{name: mme_reloads_per_second}}, target: {{type: AverageValue, averageValue: "1"}}}}
  behavior:
    scaleUp:
      policies: [{{type: Pods, value: 2, periodSeconds: 60}}]
    scaleDown:                            # each one that goes takes its share of the models with it
      stabilizationWindowSeconds: 900
      policies: [{{type: Pods, value: 1, periodSeconds: 300}}]
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {name}
  namespace: {namespace}
spec:
  maxUnavailable: 1
  selector:
    matchLabels: {{app: {name}, part: replica}}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {name}-balancer
  namespace: {namespace}
spec:
  maxUnavailable: 1
  selector:
    matchLabels: {{app: {name}, part: balancer}}
---
# Calls from the balancer alone, figures to Prometheus too; out to DNS, to S3 and to where the role's credentials are.
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {name}
  namespace: {namespace}
spec:
  podSelector:
    matchLabels: {{app: {name}, part: replica}}
  policyTypes: [Ingress, Egress]
  ingress:
    - from: [{{podSelector: {{matchLabels: {{app: {name}, part: balancer}}}}}}]
      ports: [{{port: http, protocol: TCP}}, {{port: admin, protocol: TCP}}]
    - from: [{{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: monitoring}}}}}}]
      ports: [{{port: admin, protocol: TCP}}]
  egress:
    - ports: [{{port: 53, protocol: UDP}}, {{port: 53, protocol: TCP}}, {{port: 443, protocol: TCP}}]
    - to: [{{ipBlock: {{cidr: 169.254.170.23/32}}}}]   # EKS Pod Identity's agent
      ports: [{{port: 80, protocol: TCP}}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {name}-balancer
  namespace: {namespace}
spec:
  podSelector:
    matchLabels: {{app: {name}, part: balancer}}
  policyTypes: [Ingress, Egress]
  ingress:
    - from: [{{podSelector: {{}}}}]        # of this namespace
      ports: [{{port: http, protocol: TCP}}]
  egress:
    - ports: [{{port: 53, protocol: UDP}}, {{port: 53, protocol: TCP}}]
    - to: [{{podSelector: {{matchLabels: {{app: {name}, part: replica}}}}}}]
      ports: [{{port: {port}, protocol: TCP}}, {{port: {admin_port}, protocol: TCP}}]
---
# Of the Prometheus operator.
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata:
  name: {name}
  namespace: {namespace}
spec:
  selector:
    matchLabels: {{app: {name}, part: replica}}
  endpoints:
    - {{port: admin, path: /metrics, interval: 30s}}
"""
