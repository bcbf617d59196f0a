"""What a ``ray.io/v1`` RayJob may contain: a closed schema, since the API server drops unknown fields in silence.

The ``Ray…`` models have all the fields of KubeRay v1.7.0 (its API reference, docs/reference/api.md), those that no
recipe uses as ``Unused``; the pod models have those of Kubernetes 1.28 that a recipe may use. Types are strict where
the API server's are: ``num-cpus: 0`` instead of ``"0"`` is refused there and here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
PortName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=15)]
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Quantity = Annotated[str, Field(pattern=r"^\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$")]
Path = Annotated[str, Field(pattern="^/")]
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
Seconds = Annotated[int, Field(ge=1, le=2**31 - 1)]
Unused = None  # a field that exists; a recipe that comes to need it gives it a type


class Closed(BaseModel):
    """A mapping without room for a typing mistake."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Reference(Closed):
    name: Name
    optional: bool = False


class EnvFromSource(Closed):
    secretRef: Reference | None = None
    configMapRef: Reference | None = None


class KeyReference(Reference):
    key: str


class EnvVarSource(Closed):
    secretKeyRef: KeyReference | None = None
    configMapKeyRef: KeyReference | None = None


class EnvVar(Closed):
    name: VariableName
    value: str | None = None
    valueFrom: EnvVarSource | None = None


class ContainerPort(Closed):
    name: PortName
    containerPort: Annotated[int, Field(gt=0, lt=65536)]


class ResourceRequirements(Closed):
    requests: dict[str, Quantity]
    limits: dict[str, Quantity]


class VolumeMount(Closed):
    name: Name
    mountPath: Path
    readOnly: bool = False


class Container(Closed):
    name: Name
    image: str
    imagePullPolicy: Literal["Always", "IfNotPresent", "Never"] | None = None
    env: list[EnvVar] = []
    envFrom: list[EnvFromSource] = []
    ports: list[ContainerPort] = []
    resources: ResourceRequirements
    volumeMounts: list[VolumeMount] = []


class EmptyDir(Closed):
    medium: Literal["", "Memory"] = ""
    sizeLimit: Quantity | None = None


class PersistentVolumeClaim(Closed):
    claimName: Name
    readOnly: bool = False


class Volume(Closed):
    name: Name
    emptyDir: EmptyDir | None = None
    configMap: Reference | None = None
    secret: Unused = None
    persistentVolumeClaim: PersistentVolumeClaim | None = None

    @model_validator(mode="after")
    def _has_one_source(self) -> Volume:
        if len(self.model_fields_set - {"name"}) != 1:
            raise ValueError(f"volume {self.name} needs exactly one source")
        return self


class Toleration(Closed):
    key: str
    operator: Literal["Exists", "Equal"]
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]


class PodSpec(Closed):
    containers: Annotated[list[Container], Field(min_length=1)]
    volumes: list[Volume] = []
    restartPolicy: Literal["Always", "OnFailure", "Never"] = "Always"
    terminationGracePeriodSeconds: Count = 30
    nodeSelector: dict[str, str] = {}
    tolerations: list[Toleration] = []
    serviceAccountName: Name | None = None
    imagePullSecrets: list[Reference] = []

    @model_validator(mode="after")
    def _mounts_have_volumes(self) -> PodSpec:
        for container in self.containers:
            for mount in container.volumeMounts:
                if mount.name not in {volume.name for volume in self.volumes}:
                    raise ValueError(f"{container.name} mounts {mount.name}, which is no volume of the pod")
        return self


class Metadata(Closed):
    name: Name | None = None
    namespace: Name | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class PodTemplate(Closed):
    metadata: Metadata = Metadata()
    spec: PodSpec


class AuthOptions(Closed):
    mode: Literal["disabled", "token"] = "token"
    secretName: Name | None = None
    enableK8sTokenAuth: bool | None = None


class AutoscalerOptions(Closed):
    idleTimeoutSeconds: Count | None = None
    upscalingMode: Literal["Default", "Aggressive", "Conservative"] | None = None
    version: Literal["v1", "v2"] | None = None
    resources: ResourceRequirements | None = None
    image: str | None = None
    imagePullPolicy: str | None = None
    env: list[EnvVar] = []
    envFrom: list[EnvFromSource] = []
    securityContext: Unused = None
    volumeMounts: Unused = None
    command: Unused = None
    args: Unused = None


class HeadGroup(Closed):
    rayStartParams: dict[str, str]
    template: PodTemplate
    serviceType: Literal["ClusterIP", "NodePort", "LoadBalancer"] | None = None
    resources: dict[str, str] = {}
    labels: dict[str, str] = {}
    headService: Unused = None
    enableIngress: bool | None = None
    ingressOptions: Unused = None


class WorkerGroup(Closed):
    groupName: Name
    replicas: Count = 0
    minReplicas: Count
    maxReplicas: Count
    rayStartParams: dict[str, str]
    template: PodTemplate
    idleTimeoutSeconds: Count | None = None
    numOfHosts: Count = 1
    priority: int = 0
    resources: dict[str, str] = {}
    labels: dict[str, str] = {}
    suspend: Unused = None
    scaleStrategy: Unused = None

    @model_validator(mode="after")
    def _replicas_in_range(self) -> WorkerGroup:
        if not self.minReplicas <= self.replicas <= self.maxReplicas:
            raise ValueError(f"group {self.groupName}: minReplicas ≤ replicas ≤ maxReplicas does not hold")
        return self


class RayClusterSpec(Closed):
    rayVersion: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    authOptions: AuthOptions | None = None
    enableInTreeAutoscaling: bool = False
    autoscalerOptions: AutoscalerOptions | None = None
    headGroupSpec: HeadGroup
    workerGroupSpecs: list[WorkerGroup] = []
    headServiceAnnotations: dict[str, str] = {}
    suspend: bool = False
    managedBy: str | None = None
    gcsFaultToleranceOptions: Unused = None
    historyServerOptions: Unused = None
    networkPolicy: Unused = None
    tlsOptions: Unused = None
    upgradeStrategy: Unused = None


class SubmitterConfig(Closed):
    backoffLimit: Count


class RayJobSpec(Closed):
    entrypoint: str
    rayClusterSpec: RayClusterSpec
    submissionMode: Literal["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"] = "K8sJobMode"
    shutdownAfterJobFinishes: bool = False
    ttlSecondsAfterFinished: Count = 0
    backoffLimit: Count = 0
    activeDeadlineSeconds: Seconds | None = None
    preRunningDeadlineSeconds: Seconds | None = None
    submitterConfig: SubmitterConfig | None = None
    submitterPodTemplate: PodTemplate | None = None
    runtimeEnvYAML: str | None = None
    entrypointNumCpus: float = 0
    entrypointNumGpus: float = 0
    entrypointResources: str | None = None
    jobId: str | None = None
    metadata: dict[str, str] = {}
    suspend: bool = False
    clusterSelector: Unused = None
    deletionStrategy: Unused = None
    managedBy: Unused = None

    @model_validator(mode="after")
    def _ttl_needs_shutdown(self) -> RayJobSpec:
        if self.ttlSecondsAfterFinished and not self.shutdownAfterJobFinishes:
            raise ValueError("ttlSecondsAfterFinished works only with shutdownAfterJobFinishes")
        return self


class RayJob(Closed):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Metadata
    spec: RayJobSpec


def parse(document: Any) -> RayJob:
    """Check a RayJob read from YAML; pydantic's ValidationError names each mistake's place."""
    return RayJob.model_validate(document)
