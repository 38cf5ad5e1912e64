from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('sessions_app', '0010_budget_cut'),
    ]

    operations = [
        migrations.AddField(
            model_name='rental',
            name='drifted_at',
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name='rental',
            name='drift_accepted',
            field=models.DecimalField(decimal_places=8, max_digits=14, null=True),
        ),
        migrations.AddField(
            model_name='rental',
            name='unproved_known_at',
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name='providerwatch',
            name='held_known_at',
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name='providerwatch',
            name='held_known_by',
            field=models.CharField(blank=True, max_length=160),
        ),
        migrations.AddField(
            model_name='seenorphan',
            name='decision',
            field=models.CharField(blank=True, choices=[('', 'destroyed when its grace is over'), ('destroy', 'to be destroyed now'), ('leave', 'left alone')], default='', max_length=8),
        ),
        migrations.AddField(
            model_name='seenorphan',
            name='decided_by',
            field=models.CharField(blank=True, max_length=160),
        ),
        migrations.AddField(
            model_name='seenorphan',
            name='decided_at',
            field=models.DateTimeField(null=True),
        ),
        migrations.CreateModel(
            name='UnknownMachine',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('provider', models.CharField(max_length=32)),
                ('instance_id', models.CharField(max_length=96)),
                ('label', models.CharField(blank=True, help_text='As it is at the provider', max_length=200)),
                ('first_seen_at', models.DateTimeField()),
                ('known_at', models.DateTimeField(null=True)),
                ('known_by', models.CharField(blank=True, max_length=160)),
            ],
        ),
        migrations.AddConstraint(
            model_name='unknownmachine',
            constraint=models.UniqueConstraint(fields=('provider', 'instance_id'), name='unknown_machine_once'),
        ),
        migrations.AddIndex(
            model_name='rental',
            index=models.Index(condition=models.Q(models.Q(('state', 'closed'), _negated=True), ('drifted_at__isnull', False)), fields=['drifted_at'], name='rental_drifted'),
        ),
    ]
