output "pipeline_root" {
  description = "What --pipeline-root takes."
  value       = "gs://${google_storage_bucket.artifacts.name}/runs"
}

output "checkpoint_root" {
  description = "What --checkpoint-root takes."
  value       = "gs://${google_storage_bucket.artifacts.name}/checkpoints"
}

output "image_registry" {
  description = "What NEUMF_IMAGE_REGISTRY is."
  value       = "${var.region}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.images.repository_id}"
}

output "pipeline_repository" {
  description = "Where compiled pipelines are pushed."
  value       = "https://${var.region}-kfp.pkg.dev/${var.project}/${google_artifact_registry_repository.pipelines.repository_id}"
}

output "pipeline_service_account" {
  description = "What the pipeline's steps act as."
  value       = google_service_account.pipeline.email
}

output "train_service_account" {
  description = "What the training job acts as."
  value       = google_service_account.train.email
}

output "dataflow_service_account" {
  description = "What Dataflow's workers act as, or null."
  value       = one(google_service_account.dataflow[*].email)
}

output "tensorboard" {
  description = "What --tensorboard takes, or null."
  value       = one(google_vertex_ai_tensorboard.training[*].id)
}
