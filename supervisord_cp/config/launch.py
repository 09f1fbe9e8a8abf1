"""From a deployment to what its engines are started with."""

from supervisord_cp.config.schema import DeploymentConfig
from supervisord_cp.model.launch import EngineKind, LaunchSpec, SleepLevel


def launch_spec(deployment: DeploymentConfig) -> LaunchSpec:
    """Everything that decides how a deployment's engine is started."""
    return LaunchSpec(
        engine=EngineKind(deployment.engine),
        model=deployment.model,
        served_names=deployment.names,
        executable=deployment.executable,
        args=deployment.args,
        env=deployment.env,
        gpus=deployment.gpus,
        command=deployment.command,
        ready_path=deployment.ready_path,
        start_timeout_s=deployment.start_timeout_s,
        stop_grace_s=deployment.stop_grace_s,
        stall_s=deployment.stall_s,
        sleep=SleepLevel(deployment.sleep),
    )
