variable "project" {
  description = "The id of a project that exists and has billing."
  type        = string
}

variable "region" {
  description = "Where everything is: the bucket, the repositories, the runs."
  type        = string
}

variable "bucket" {
  description = "The name of the bucket for artifacts and checkpoints, unique in the world."
  type        = string
}

variable "prefix" {
  description = "What the names of repositories and service accounts begin with."
  type        = string
  default     = "neumf"
}

variable "submitters" {
  description = "Who may submit runs, as user:, group: or serviceAccount: members."
  type        = set(string)
  default     = []
}

variable "image_publishers" {
  description = "Who may push images and compiled pipelines, as user:, group: or serviceAccount: members."
  type        = set(string)
  default     = []
}

variable "days_to_keep_runs" {
  description = "Days after which the artifacts of runs, all below runs/, are deleted; 0 keeps them."
  type        = number
  default     = 90

  validation {
    condition     = var.days_to_keep_runs >= 0
    error_message = "days_to_keep_runs must not be negative."
  }
}

variable "days_to_keep_checkpoints" {
  description = "Days after which checkpoints, all below checkpoints/, are deleted; 0 keeps them."
  type        = number
  default     = 14

  validation {
    condition     = var.days_to_keep_checkpoints >= 0
    error_message = "days_to_keep_checkpoints must not be negative."
  }
}

variable "kms_key" {
  description = "The Cloud KMS key for the bucket and the repositories, or null. Their service agents must be allowed to use it."
  type        = string
  default     = null
}

variable "with_dataflow" {
  description = "Whether the generate step may run on Dataflow."
  type        = bool
  default     = false
}

variable "with_tensorboard" {
  description = "Whether there is a TensorBoard instance, which costs money of its own, that training may write to."
  type        = bool
  default     = false
}
